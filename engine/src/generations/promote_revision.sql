-- Generation $2 of projection $1 takes over from generation $3: the revision of every read model rises, whatever it was.
with next as (
    select 1 + greatest(
        (select max(revision) from gobo.checkpoints where generation in ($2, $3)),
        (select max(revision) from gobo.read_models where projection = $1)) as revision
), checkpoint as (
    update gobo.checkpoints set revision = next.revision from next where generation = $2
)
update gobo.read_models set revision = next.revision from next where projection = $1
