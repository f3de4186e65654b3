-- The event at position $1, or with identity $2, or those of stream $3: positions and the types that they were appended with.
select e.position, coalesce(r.event_type, e.type)
  from gobo.events e
  left join gobo.redactions r on r.position = e.position
 where e.position = $1 or e.event_id = $2 or e.stream_id = $3
 order by e.position
