-- The second half of a look at the safe head: the sequence $2 as it is now, and L, the transactions that may still make
-- events at or below the H that was read before, on the table $1 or any table below it.
--
-- A transaction is named by its virtualtransaction: a prepared one has no pid.
with recursive tree (oid) as (
  select $1::oid
  union
  select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.oid
)
select s.seqincrement, s.seqcache, s.seqcycle,
       array(
         select distinct l.virtualtransaction
           from pg_locks l
          where $3 and l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.granted
            and l.database = (select d.oid from pg_database d where d.datname = current_database())
            -- nextval() locks its sequence until the transaction ends, before it draws.
            and (l.relation in (select t.oid from tree t) or ($4 and l.relation = s.seqrelid))
       ) as holders
  from pg_sequence s
 where s.seqrelid = $2
