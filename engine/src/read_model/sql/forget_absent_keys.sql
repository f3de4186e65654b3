-- Nothing waits any more. Whoever is not the owner forgets nothing.
with mine as (
    update gobo.checkpoints
       set absent_keys = 0
     where generation = $1 and epoch = $2 and absent_keys > 0
    returning generation
)
delete from gobo.absent_keys a using mine where a.generation = mine.generation
