-- Keeps keys at which there was no row while a stream waited. From $6 of them on, no more are kept, and the generation counts
-- as diverged.
with kept as (
    insert into gobo.absent_keys as k (generation, read_model, key, stream_id, freed, position)
    select $1::bigint, a.read_model, a.key, a.stream_id, a.freed, $8::bigint
      from unnest($2::text[], $3::bytea[], $4::text[], $5::boolean[]) as a(read_model, key, stream_id, freed)
     where (select c.absent_keys from gobo.checkpoints c where c.generation = $1::bigint) < $6::integer
    on conflict (generation, read_model, key, stream_id) do update
       set freed = k.freed or excluded.freed, position = greatest(k.position, excluded.position)
    returning xmax = 0 as is_new
), counted as (
    select count(*)::integer as added from kept where is_new
), checkpoint as (
    update gobo.checkpoints c
       set absent_keys = c.absent_keys + n.added,
           diverged = c.diverged or c.absent_keys + n.added >= $6::integer
      from counted n
     where c.generation = $1::bigint and n.added > 0
    returning c.absent_keys, n.added
)
insert into gobo.plugin_logs (projection, generation, position, level, message)
select $7::text, $1::bigint, $8::bigint, 'warn',
       'the generation counts as diverged: more rows were looked for in vain while streams waited than are kept track of'
  from checkpoint c
 where c.absent_keys >= $6::integer and c.absent_keys - c.added < $6::integer
