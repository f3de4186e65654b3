-- What the server says about a source: its table $1 and the tables below it, the position's column $2, and the
-- sequence $3 (when null, the one that the column's default or identity draws from). One row, whatever exists.
with recursive
  named as (select to_regclass($1)::oid as oid),
  tree (oid) as (
    select oid from named where oid is not null
    union
    select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.oid
  ),
  member as (
    select c.oid, c.relkind, c.relpersistence, format('%I.%I', n.nspname, c.relname) as name,
           a.attnum, a.attidentity, format_type(a.atttypid, null) as type,
           pg_get_expr(d.adbin, d.adrelid) as default_value, d.oid as default_oid
      from tree t
      join pg_class c on c.oid = t.oid
      join pg_namespace n on n.oid = c.relnamespace
      left join pg_attribute a on a.attrelid = c.oid and a.attname = $2 and a.attnum > 0 and not a.attisdropped
      left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
  ),
  root as (select m.* from member m join named using (oid)),
  drawn as (
    select case
        when $3::text is not null then to_regclass($3)::oid
        when r.attidentity <> '' then (
          select d.objid from pg_depend d
           where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
             and d.refobjid = r.oid and d.refobjsubid = r.attnum and d.deptype = 'i')
        else (
          select min(d.refobjid) from pg_depend d join pg_class s on s.oid = d.refobjid and s.relkind = 'S'
           where d.classid = 'pg_attrdef'::regclass and d.objid = r.default_oid
             and d.refclassid = 'pg_class'::regclass)
      end as oid
      from root r
  ),
  seq as (
    select c.oid, format('%I.%I', n.nspname, c.relname) as name, c.relpersistence,
           has_sequence_privilege(c.oid, 'SELECT') as readable,
           format('nextval(%L::regclass)', c.oid::regclass::text) as default_value
      from drawn d
      join pg_class c on c.oid = d.oid and c.relkind = 'S'
      join pg_namespace n on n.oid = c.relnamespace
  )
select pg_is_in_recovery() as standby,
       current_setting('server_encoding') as encoding,
       current_user::text as role,
       r.oid as table_oid, r.name as table_name, r.relkind::text as kind,
       coalesce(row_security_active(r.oid), false) as row_security,
       r.type as position_type,
       s.oid as sequence_oid, s.name as sequence_name, s.readable as sequence_readable,
       s.relpersistence = 'p' as sequence_logged,
       -- Identity has no expression; its sequence is found through the dependency alone.
       coalesce(r.attidentity <> '' and s.oid = (
           select d.objid from pg_depend d
            where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
              and d.refobjid = r.oid and d.refobjsubid = r.attnum and d.deptype = 'i')
         or r.default_value = s.default_value, false) as sequence_is_default,
       array(select m.name from member m where m.relpersistence <> 'p' order by 1) as not_logged,
       array(select m.name from member m
              where m.relkind = 'r' and not exists (
                select from pg_index i
                 where i.indrelid = m.oid and i.indkey[0] = m.attnum and i.indisvalid and i.indpred is null)
              order by 1) as not_indexed,
       array(select m.name from member m
              where m.default_value is not null and m.default_value is distinct from s.default_value
              order by 1) as other_default,
       a.pid, a.backend_start::text as backend_start
  from (values (1)) as one (row)
  left join root r on true
  left join seq s on true
  left join pg_stat_activity a on a.pid = pg_backend_pid()
