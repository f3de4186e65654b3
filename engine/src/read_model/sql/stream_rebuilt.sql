-- Stream $2 of generation $1 has $4 rows now, as was asked for at $3.
update gobo.stream_rebuilds
   set finished_at = clock_timestamp(), rows = $4, error = null
 where generation = $1 and stream_id = $2 and finished_at is null
   and requested_at = timestamptz '2000-01-01 00:00:00Z' + $3::bigint * interval '1 microsecond'
