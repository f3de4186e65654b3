-- The live generation of every projection.
select p.name, g.id as generation, p.source, g.plugin_hash
  from gobo.projections p
  join gobo.generations g on g.id = p.live
