-- Every generation that runs or can be read.
select g.projection, g.id as generation, g.source, g.plugin_hash, g.state, g.purpose, g.bulk, g.paused, g.label,
       least(g.until, case when g.barrier_expires > clock_timestamp() then g.barrier end) as until,
       (extract(epoch from g.until_time - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint as until_micros,
       p.settings::text as settings
  from gobo.generations g
  join gobo.projections p on p.name = g.projection
 where g.state <> 'dropping'
