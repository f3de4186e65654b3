-- The events of stream $1 after version $2: at most $3 of them, and no further one once $4 bytes are reached.
select position, stream_id, version, type, data::text, metadata::text, event_id,
       to_char(occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as occurred_at,
       to_char(recorded_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as recorded_at,
       more
  from (
      select e.*,
             lead(version) over in_order is not null as more,
             row_number() over in_order as n,
             sum(octet_length(data::text) + coalesce(octet_length(metadata::text), 0)) over in_order
                 - octet_length(data::text) - coalesce(octet_length(metadata::text), 0) as bytes_before
        from (
            select * from gobo.events
             where stream_id = $1 and version > $2
             order by stream_id, version limit $3::int8 + 1
        ) as e
      window in_order as (order by version)
  ) as counted
 where n <= $3::int8 and bytes_before < $4::int8
 order by version
