-- Generation $2 of projection $1 has other columns: the revision of every read model rises.
with checkpoint as (
    update gobo.checkpoints set revision = revision + 1 where generation = $2 returning revision
)
update gobo.read_models m
   set revision = greatest(m.revision + 1, checkpoint.revision) from checkpoint
 where m.projection = $1
