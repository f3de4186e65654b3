-- The events after position $1 and up to $2, of the types $3 (null: of all): at most $4 of them, and no further one once
-- $5 bytes are reached.
select position, stream_id, version, type, data::text, metadata::text, event_id,
       to_char(occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as occurred_at,
       to_char(recorded_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as recorded_at,
       more
  from (
      select e.*,
             lead(position) over in_order is not null as more,
             row_number() over in_order as n,
             sum(octet_length(data::text) + coalesce(octet_length(metadata::text), 0)) over in_order
                 - octet_length(data::text) - coalesce(octet_length(metadata::text), 0) as bytes_before
        from (
            select * from gobo.events
             where position > $1 and position <= $2 and ($3::text[] is null or type = any ($3::text[]))
             order by position limit $4::int8 + 1
        ) as e
      window in_order as (order by position)
  ) as counted
 where n <= $4::int8 and bytes_before < $5::int8
 order by position
