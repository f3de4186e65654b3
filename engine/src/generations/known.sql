-- The live generation of projection $1, and its candidate if there is one.
select g.id, g.source, g.plugin_hash, c.id, c.plugin_hash
  from gobo.projections p
  join gobo.generations g on g.id = p.live
  left join gobo.generations c
         on c.projection = p.name and c.purpose = 'projection' and c.state = 'building'
 where p.name = $1
