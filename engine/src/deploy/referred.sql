-- The live generations of other projections that own one of these read models.
select distinct p.live
  from gobo.read_models m
  join gobo.projections p on p.name = m.projection
 where m.name = any ($1) and p.name <> $2 and p.live is not null
