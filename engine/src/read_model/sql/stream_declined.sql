-- Stream $2 of generation $1 stays as it is, for reason $4, though it was asked for at $3. Only the owner says so, of its own code: $6.
update gobo.stream_rebuilds r
   set finished_at = clock_timestamp(), rows = null, error = $4
  from gobo.checkpoints c
 where r.generation = $1 and r.stream_id = $2 and r.finished_at is null
   and r.requested_at = timestamptz '2000-01-01 00:00:00Z' + $3::bigint * interval '1 microsecond'
   and c.generation = r.generation and c.epoch = $5 and c.plugin_hash = $6
