-- What was built on the tables of projection $1's generations, or on the views $3 in schema $2, other than those views.
with ours as (
    select c.oid, c.relkind = 'v' as is_view
      from pg_class c
      join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in (select 'gobo_g' || g.id from gobo.generations g where g.projection = $1)
        or n.nspname = $2 and c.relname = any ($3) and c.relkind = 'v'
)
select distinct pg_describe_object('pg_class'::regclass, r.ev_class, 0) || ' depends on '
                || pg_describe_object('pg_class'::regclass, d.refobjid, 0)
  from ours o
  join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = o.oid and d.classid = 'pg_rewrite'::regclass
  join pg_rewrite r on r.oid = d.objid
 where r.ev_class not in (select oid from ours)
union
select pg_describe_object('pg_constraint'::regclass, f.oid, 0) || ' depends on '
       || pg_describe_object('pg_class'::regclass, f.confrelid, 0)
  from ours o
  join pg_constraint f on f.confrelid = o.oid and f.contype = 'f'
 where f.conrelid not in (select oid from ours)
union
select pg_describe_object('pg_proc'::regclass, d.objid, 0) || ' depends on '
       || pg_describe_object('pg_class'::regclass, d.refobjid, 0)
  from ours o
  join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = o.oid and d.classid = 'pg_proc'::regclass
 order by 1
