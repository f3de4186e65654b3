-- Every generation that runs or can be read.
select g.projection, g.id as generation, g.source, g.plugin_hash, g.state, g.purpose, g.bulk, g.paused,
       least(g.until, case when g.barrier_expires > clock_timestamp() then g.barrier end) as until,
       p.settings::text as settings
  from gobo.generations g
  join gobo.projections p on p.name = g.projection
 where g.state <> 'dropping'
