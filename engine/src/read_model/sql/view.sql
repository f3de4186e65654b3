-- The relation $2 in schema $1, if there is one: whether it is a view over a generation's table, its columns in order, and its grants as
-- statements.
select c.relkind = 'v' and exists (
           select from pg_rewrite r
             join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
             join pg_class t on t.oid = d.refobjid
             join pg_namespace s on s.oid = t.relnamespace
            where r.ev_class = c.oid and t.relname = $2 and s.nspname ~ '^gobo_g\d+$') as ours,
       coalesce((select array_agg(a.attname::text order by a.attnum) from pg_attribute a
                  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '{}') as columns,
       coalesce((select array_agg(a.atttypid order by a.attnum) from pg_attribute a
                  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '{}') as types,
       coalesce(g.columns, '{}') as granted_on,
       coalesce(g.statements, '{}') as grants
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  cross join lateral (
       select array_agg(x.attname) as columns,
              array_agg(format('grant %s%s on %s to %s%s', x.privilege_type,
                               case when x.attname is not null then format(' (%I)', x.attname) end,
                               c.oid::regclass,
                               case x.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(x.grantee)) end,
                               case when x.is_grantable then ' with grant option' else '' end)) as statements
         from (select null::text as attname, e.grantee, e.privilege_type, e.is_grantable
                 from aclexplode(c.relacl) e where e.grantee <> c.relowner
               union all
               select a.attname::text, e.grantee, e.privilege_type, e.is_grantable
                 from pg_attribute a, aclexplode(a.attacl) e
                where a.attrelid = c.oid and not a.attisdropped) x) g
 where n.nspname = $1 and c.relname = $2
