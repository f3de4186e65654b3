-- Every projection with the state of its live generation, or of all its generations if $2; $1 names one, or is null.
select p.name, g.source, g.id as generation, g.plugin_hash, pl.version,
       g.state as stage, g.purpose, g.reason, g.hold, g.bulk, g.paused, g.until, g.label, g.trouble,
       to_json(g.created_at) #>> '{}' as created_at, to_json(g.promoted_at) #>> '{}' as promoted_at,
       to_json(g.expires_at) #>> '{}' as expires_at,
       c.position, c.error::text as error, c.diverged,
       l.owner_name, l.owner is not null and l.expires_at > clock_timestamp() as owned,
       (select count(*) from gobo.dead_letters d
         where d.generation = g.id and d.state <> 'discarded') as dead_letters,
       (select coalesce(json_agg(json_build_object('name', m.name, 'revision', m.revision) order by m.name), '[]')
          from gobo.read_models m where m.projection = p.name)::text as read_models
       , (select json_build_object('generation', b.id, 'position', bc.position, 'hold', b.hold, 'trouble', b.trouble,
                                   'error', bc.error)
          from gobo.generations b join gobo.checkpoints bc on bc.generation = b.id
         where b.projection = p.name and b.purpose = 'projection' and b.state = 'building')::text as candidate
  from gobo.projections p
  join gobo.generations g on case when $2 then g.projection = p.name and g.state <> 'dropping' else g.id = p.live end
  join gobo.plugins pl on pl.hash = g.plugin_hash
  join gobo.checkpoints c on c.generation = g.id
  join gobo.leases l on l.generation = g.id
 where $1::text is null or p.name = $1
 order by p.name, g.id
