-- The generations of projection $1 and their tables.
select g.id, g.state, g.purpose, format('%I.%I', n.nspname, c.relname),
       case when c.reltuples >= 0 then c.reltuples::int8 end, pg_total_relation_size(c.oid)
  from gobo.generations g
  left join pg_namespace n on n.nspname = 'gobo_g' || g.id
  left join pg_class c on c.relnamespace = n.oid and c.relkind = 'r'
 where g.projection = $1
 order by g.id, c.relname
