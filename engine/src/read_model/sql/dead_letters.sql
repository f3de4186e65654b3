insert into gobo.dead_letters (generation, position, stream_id, event_type, event_id, state, message)
select $1::bigint, l.position, l.stream_id, l.event_type, l.event_id, l.state, l.message
  from unnest($2::bigint[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[])
       as l(position, stream_id, event_type, event_id, state, message)
on conflict (generation, position) do update
   set state = excluded.state,
       message = excluded.message,
       attempts = dead_letters.attempts + 1,
       retry = false,
       updated_at = now()
