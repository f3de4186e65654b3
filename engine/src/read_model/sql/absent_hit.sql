-- Which of the keys that a retried event of stream $5 at position $6 wrote, or found no row at, would have been seen
-- otherwise in a replay, by this event or by a later one.
select t.n
  from unnest($2::text[], $3::bytea[], $4::boolean[]) with ordinality as t(read_model, key, written, n)
  join gobo.absent_keys a
    on a.generation = $1::bigint and a.read_model = t.read_model and a.key = t.key
 where a.stream_id <> $5::text and a.position > $6::bigint and (a.freed or t.written)
 order by t.n
 limit 1
