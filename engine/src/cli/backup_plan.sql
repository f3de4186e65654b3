-- What a dump of this database has to take along.
with schemas as (
    select n.oid, n.nspname, n.nspowner, n.nspacl from pg_namespace n
     where n.nspname = 'gobo' or n.nspname ~ '^gobo_g\d+$'
        or exists (select from pg_class v
                     join pg_rewrite r on r.ev_class = v.oid
                     join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
                     join pg_class t on t.oid = d.refobjid
                     join pg_namespace s on s.oid = t.relnamespace
                    where v.relnamespace = n.oid and v.relkind = 'v' and s.nspname ~ '^gobo_g\d+$')
), relations as (
    select c.* from pg_class c join schemas s on s.oid = c.relnamespace
)
select current_database()::text as name,
       current_setting('server_version') as version,
       pg_size_pretty(pg_database_size(current_database())) as size,
       array(select nspname::text from schemas where nspname !~ '^gobo_g\d+$' order by 1) as schemas,
       (select count(*) from schemas where nspname ~ '^gobo_g\d+$') as generations,
       array(select distinct pg_get_userbyid(o)::text from (
                 select nspowner from schemas union select relowner from relations) as owners (o) order by 1) as owners,
       array(select distinct pg_get_userbyid(x.grantee)::text
               from (select nspacl as acl, nspowner as owner from schemas
                     union all select relacl, relowner from relations) a,
                    aclexplode(a.acl) x
              where x.grantee <> 0 and x.grantee <> a.owner order by 1) as granted,
       array(select format('%I.%I', s.nspname, c.relname) from relations c join schemas s on s.oid = c.relnamespace
              where c.relkind = 'r' and c.relpersistence = 'u' order by 1) as unlogged,
       array(select distinct source from gobo.generations where source <> $1 order by 1) as foreign_sources
