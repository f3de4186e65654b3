-- Generations whose tables are to go and which no loop writes to.
select g.id, g.projection
  from gobo.generations g
  join gobo.leases l on l.generation = g.id
 where g.state = 'dropping' and (l.owner is null or l.expires_at < clock_timestamp())
 order by g.id
