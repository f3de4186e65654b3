insert into gobo.imports as i (name, bytes, lines, prefix_sha256, last_position)
values ($1, $2, $3, $4, case when $5 then currval('gobo.events_position_seq') else 0 end)
on conflict (name) do update
   set bytes = excluded.bytes, lines = excluded.lines, prefix_sha256 = excluded.prefix_sha256,
       last_position = greatest(i.last_position, excluded.last_position),
       updated_at = clock_timestamp(), finished_at = null
returning last_position
