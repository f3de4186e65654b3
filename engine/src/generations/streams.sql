-- Streams of generation $1 whose rows were to be computed anew, or stream $2 alone: the last wish first.
select r.stream_id, to_json(r.requested_at) #>> '{}', to_json(r.finished_at) #>> '{}', r.rows, r.error
  from gobo.stream_rebuilds r
 where r.generation = $1 and ($2::text is null or r.stream_id = $2)
 order by r.requested_at desc
 limit 1000
