-- What is compared of projection $1 when nobody says: its live generation with its candidate, or else with the one that was
-- live last.
select p.live,
       (select g.id from gobo.generations g
         where g.projection = p.name and g.purpose = 'projection' and g.state in ('building', 'kept')
         order by g.state = 'building' desc, g.retired_at desc nulls last limit 1) as other
  from gobo.projections p
 where p.name = $1 and p.live is not null
