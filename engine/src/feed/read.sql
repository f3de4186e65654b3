-- Where read model $1 stands, and its commits after revision $2, at most $3. The last column but one: a transaction that is
-- seen here has written its end before this statement began, so before the place that is asked for here.
select (select to_char(pg_postmaster_start_time(), 'YYMMDDHH24MISSUS') || '-' || left(token::text, 8)
          from gobo.incarnation) as incarnation,
       c.generation, c.position, m.revision,
       pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn() as is_flushed,
       f.revision as commit_revision, f.previous as commit_previous, f.generation as commit_generation,
       f.position as commit_position, f.changes::text as changes
  from gobo.read_models m
  join gobo.projections p on p.name = m.projection
  join gobo.checkpoints c on c.generation = p.live
  left join lateral (
       select * from gobo.feed f
        where f.read_model = m.name and f.revision > $2
        order by f.revision limit $3
  ) f on true
 where m.name = $1
 order by f.revision
