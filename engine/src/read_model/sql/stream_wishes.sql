-- The streams of generation $1 that are to be computed anew, and when that was asked for.
select r.stream_id,
       (extract(epoch from r.requested_at - timestamptz '2000-01-01 00:00:00Z') * 1000000)::bigint
  from gobo.stream_rebuilds r
 where r.generation = $1 and r.finished_at is null
 order by r.requested_at
