-- Forgets commits that are older than $1 minutes or not among the last $2, at most $3 of each read model, the oldest first.
-- Those of read models that are gone have gone with them. One node at a time.
with turn as materialized (
    select pg_try_advisory_xact_lock(x'676f626f0006'::bigint) as is_mine
), old as (
    select f.read_model, f.revision
      from turn
     cross join gobo.read_models m
     cross join lateral (
           select f.read_model, f.revision, f.committed_at
             from gobo.feed f where f.read_model = m.name order by f.revision limit $3
     ) f
     where turn.is_mine
       and (f.committed_at < clock_timestamp() - $1 * interval '1 minute' or f.revision <= m.revision - $2)
)
delete from gobo.feed f using old where f.read_model = old.read_model and f.revision = old.revision
