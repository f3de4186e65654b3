update gobo.leases
   set owner = $2, owner_name = $3, expires_at = clock_timestamp() + make_interval(secs => $4)
 where generation = $1
   and (owner = $2 or expires_at < clock_timestamp())
