-- Generation $1 goes on with plugin $2. What stopped the old code may not stop the new one.
update gobo.checkpoints
   set plugin_hash = $2, error = null, updated_at = clock_timestamp()
 where generation = $1
returning position
