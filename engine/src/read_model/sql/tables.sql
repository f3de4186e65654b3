-- The tables of schema $1 with their columns in order, their keys and their secondary indexes.
select c.relname::text as name,
       a.names as columns, a.types, a.required,
       coalesce((select array_agg(k.attname::text order by u.nth)
                   from pg_index i
                   cross join unnest(i.indkey::int2[]) with ordinality as u (attnum, nth)
                   join pg_attribute k on k.attrelid = c.oid and k.attnum = u.attnum
                  where i.indrelid = c.oid and i.indisprimary), '{}') as key,
       -- Names of columns hold no commas. Indexes that somebody else added do not begin with an underscore.
       coalesce((select array_agg(x.columns order by x.nth)
                   from (select string_agg(k.attname::text, ',' order by u.nth) as columns,
                                (regexp_match(n.relname, '^_index\d+_(\d+)'))[1]::int4 as nth
                           from pg_index i
                           join pg_class n on n.oid = i.indexrelid
                           cross join unnest(i.indkey::int2[]) with ordinality as u (attnum, nth)
                           join pg_attribute k on k.attrelid = c.oid and k.attnum = u.attnum
                          where i.indrelid = c.oid and n.relname ~ '^_index\d+_\d+'
                          group by n.oid, n.relname) as x), '{}') as indexes
  from pg_class c
  join pg_namespace s on s.oid = c.relnamespace
  cross join lateral (
       select array_agg(attname::text order by attnum) as names,
              array_agg(atttypid order by attnum) as types,
              array_agg(attnotnull order by attnum) as required
         from pg_attribute
        where attrelid = c.oid and attnum > 0 and not attisdropped) as a
 where s.nspname = $1 and c.relkind = 'r'
 order by c.relname
