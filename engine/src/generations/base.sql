-- The generation of projection $1 that a replay up to position $4 may start from: complete, filled from source $3 by plugin $2 and by
-- no other code, and such that a replay from the first event gives the same rows. The one that is nearest.
select g.id, g.purpose, g.label, c.position
  from gobo.generations g
  join gobo.checkpoints c on c.generation = g.id
 where g.projection = $1 and g.plugin_hash = $2 and g.source = $3
   and g.purpose in ('replay', 'snapshot') and g.state = 'done'
   and c.position <= $4 and c.position > 0 and not c.diverged
   and not exists (select from gobo.dead_letters d where d.generation = g.id and d.state = 'discarded')
   and not exists (select from gobo.redactions r where g.id = any (r.generations))
 order by c.position desc, g.id desc
 limit 1
