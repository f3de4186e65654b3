-- The $2 generations of projection $1 that were live last are kept.
update gobo.generations g
   set state = 'dropping', reason = 'newer ones are kept'
 where g.projection = $1 and g.purpose = 'projection' and g.state = 'kept'
   and g.id not in (select k.id from gobo.generations k
                     where k.projection = $1 and k.purpose = 'projection' and k.state = 'kept'
                     order by k.retired_at desc nulls last limit $2)
