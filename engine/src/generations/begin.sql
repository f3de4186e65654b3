-- A generation of projection $1, which reads source $2 with plugin $3: everything but its tables.
with generation as (
    insert into gobo.generations
        (projection, source, plugin_hash, purpose, hold, bulk, reason, until, until_time, label, expires_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8, timestamptz '2000-01-01 00:00:00Z' + $9::bigint * interval '1 microsecond', $10,
            now() + make_interval(hours => $11::int4))
    returning id, plugin_hash
), checkpoint as (
    insert into gobo.checkpoints (generation, plugin_hash) select id, plugin_hash from generation
), lease as (
    insert into gobo.leases (generation) select id from generation
)
select id from generation
