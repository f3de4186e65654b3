select c.position, c.revision, c.applied_position, c.applied_event_id,
       array(select distinct l.stream_id
               from gobo.dead_letters l
              where l.generation = c.generation and l.state in ('failed', 'behind')),
       c.diverged,
       g.bulk,
       -- All keys of a generation are made in one transaction.
       not exists (select from pg_class t
                     join pg_namespace n on n.oid = t.relnamespace
                    where n.nspname = $4 and t.relkind = 'r'
                      and not exists (select from pg_constraint k where k.conrelid = t.oid and k.contype = 'p'))
  from gobo.checkpoints c
  join gobo.generations g on g.id = c.generation
 where c.generation = $1 and c.epoch = $2 and c.plugin_hash = $3
