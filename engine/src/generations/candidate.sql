-- Generation $2 of projection $1, if it can become the live one.
select g.plugin_hash, p.live, g.promoted_at is not null as was_live
  from gobo.generations g
  join gobo.projections p on p.name = g.projection
 where p.name = $1 and g.id = $2 and g.purpose = 'projection' and g.state = 'building'
   and not g.hold and not g.paused
