-- The last thing that changed what is live of projection $1. A swap or its undoing has a previous hash.
select generation, previous_hash
  from gobo.deploys
 where projection = $1 and action in ('created', 'swapped', 'promoted', 'rolled_back', 'restored')
 order by id desc
 limit 1
