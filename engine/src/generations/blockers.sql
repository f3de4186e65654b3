-- The oldest transaction that holds a lock on one of the views $2 of schema $1, has held it for long, and is not about to end;
-- one that is executing a statement only counts if $3. Nothing, if sessions are not ours to see.
select format('session %s (%s, %s for %s s) reads "%s"."%s"; the switch waits until its transaction ends',
              a.pid, coalesce(nullif(a.application_name, ''), 'no name'), a.state,
              round(extract(epoch from clock_timestamp() - a.xact_start)::numeric, 1), n.nspname, c.relname)
  from pg_locks l
  join pg_class c on c.oid = l.relation
  join pg_namespace n on n.oid = c.relnamespace
  join pg_stat_activity a on a.pid = l.pid
 where l.locktype = 'relation'
   and l.database = (select oid from pg_database where datname = current_database())
   and l.granted
   and n.nspname = $1 and c.relname = any ($2)
   and l.pid <> pg_backend_pid()
   and a.xact_start < clock_timestamp() - interval '100 milliseconds'
   and (a.state <> 'active' or $3)
 order by a.xact_start
 limit 1
