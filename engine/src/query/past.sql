-- The projection that has, or had, read model $1, and its generations at points in the past: the complete ones first.
select m.projection, g.id as generation, g.state = 'done' as is_done, g.until, g.label,
       (extract(epoch from g.until_time - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint as until_time,
       c.position, c.error is not null as has_stopped,
       (extract(epoch from clock_timestamp() - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint as now
  from gobo.read_models m
  left join (gobo.generations g join gobo.checkpoints c on c.generation = g.id)
         on g.projection = m.projection and g.purpose in ('replay', 'snapshot') and g.state in ('building', 'done')
 where m.name = $1
 order by g.state = 'done' desc, g.id desc
