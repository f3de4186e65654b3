-- Where read model $1 stands, and its commits after revision $2, in order: at most $3, and none after those that have $4 bytes
-- together. `is_flushed`: a transaction that is seen here has written its end before this statement began, so before the
-- place that is asked for here.
with recursive page as (
    (select f.revision, f.previous, f.generation, f.position, f.changes::text as changes, 1::bigint as number,
            coalesce(octet_length(f.changes::text), 0)::bigint as bytes
       from gobo.feed f
      where f.read_model = $1 and f.revision > $2
      order by f.revision limit 1)
    union all
    select next.revision, next.previous, next.generation, next.position, next.changes, page.number + 1,
           page.bytes + coalesce(octet_length(next.changes), 0)
      from page
     cross join lateral (
           select f.revision, f.previous, f.generation, f.position, f.changes::text as changes
             from gobo.feed f
            where f.read_model = $1 and f.revision > page.revision
            order by f.revision limit 1
     ) next
     where page.number < $3 and page.bytes < $4
)
select (select to_char(pg_postmaster_start_time(), 'YYMMDDHH24MISSUS') || '-' || left(token::text, 8)
          from gobo.incarnation) as incarnation,
       c.generation, c.position, m.revision,
       pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn() as is_flushed,
       page.revision as commit_revision, page.previous as commit_previous, page.generation as commit_generation,
       page.position as commit_position, page.changes, page.bytes
  from gobo.read_models m
  join gobo.projections p on p.name = m.projection
  join gobo.checkpoints c on c.generation = p.live
  left join page on true
 where m.name = $1
 order by page.revision
