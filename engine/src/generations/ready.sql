-- Whether generation $1 may be promoted and is nearly as far as the live one: its last few events are waited for.
select from gobo.generations g
  join gobo.projections p on p.name = g.projection
  join gobo.checkpoints c on c.generation = g.id
  join gobo.checkpoints l on l.generation = p.live
 where g.id = $1 and g.state = 'building' and not g.hold and not g.bulk and not g.paused
   and c.error is null and c.position >= l.position - 1000
