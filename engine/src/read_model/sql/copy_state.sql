-- Generation $2 becomes what generation $1 is: its checkpoint, its dead letters, what late retries are held against, and which
-- events it has read that were redacted since. If $3, it counts as diverged in any case.
with base as (
    select position, applied_position, applied_event_id, revision, absent_keys, diverged
      from gobo.checkpoints
     where generation = $1
), letters as (
    insert into gobo.dead_letters
        (generation, position, stream_id, event_type, event_id, state, message, attempts, created_at, updated_at)
    select $2, position, stream_id, event_type, event_id, state, message, attempts, created_at, updated_at
      from gobo.dead_letters
     where generation = $1
), absent as (
    insert into gobo.absent_keys (generation, read_model, key, stream_id, freed, position)
    select $2, read_model, key, stream_id, freed, position from gobo.absent_keys where generation = $1
), redacted as (
    update gobo.redactions set generations = generations || $2 where $1 = any (generations)
)
update gobo.checkpoints c
   set position = base.position, applied_position = base.applied_position, applied_event_id = base.applied_event_id,
       revision = base.revision, absent_keys = base.absent_keys, diverged = base.diverged or $3
  from base
 where c.generation = $2
returning c.position
