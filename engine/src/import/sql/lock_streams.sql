-- Keeps gobo.append off these streams until the end of the transaction; in one order, whoever asks.
select pg_advisory_xact_lock(key)
  from (select distinct hashtextextended(id, 7265696) as key from unnest($1::text[]) as id order by 1) as keys
