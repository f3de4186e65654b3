-- Generations $2 of projection $1, and what keeps each of them from moving.
select g.id, g.state, g.paused, g.bulk, g.until, c.position, c.error ->> 'message' as error
  from gobo.generations g
  join gobo.checkpoints c on c.generation = g.id
 where g.projection = $1 and g.id = any ($2)
