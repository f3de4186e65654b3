-- Whether events are stored with the given content, in the order given. A moment that is null was not given.
select stored.stream_id = given.stream_id and stored.type = given.type
       and stored.data::jsonb = given.data::jsonb
       and stored.metadata::jsonb is not distinct from given.metadata::jsonb
       and (given.moment is null or stored.occurred_at = timestamptz '2000-01-01 00:00:00+00' + given.moment * interval '1 microsecond')
  from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int8[])
       with ordinality as given (id, stream_id, type, data, metadata, moment, n)
  join gobo.events stored on stored.event_id = given.id
 order by given.n
