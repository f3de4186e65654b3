-- What has expired goes.
update gobo.generations
   set state = 'dropping', reason = 'it has expired'
 where expires_at < now() and purpose <> 'projection' and state in ('building', 'done')
