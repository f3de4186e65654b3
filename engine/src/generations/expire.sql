-- What has expired goes.
update gobo.generations
   set state = 'dropping', reason = 'it has expired'
 where expires_at < now() and purpose <> 'projection' and state in ('building', 'done')
    -- A copy that was being made while its projection was removed.
    or state <> 'dropping' and projection in (select name from gobo.projections where live is null)
