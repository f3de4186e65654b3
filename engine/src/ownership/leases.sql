select l.generation,
       l.owner is not distinct from $1,
       l.expires_at < clock_timestamp(),
       c.error is not null,
       exists (select from gobo.dead_letters d where d.generation = l.generation and d.retry)
           or exists (select from gobo.stream_rebuilds r where r.generation = l.generation and r.finished_at is null)
  from gobo.leases l
  join gobo.checkpoints c using (generation)
