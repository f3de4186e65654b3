select c.position, c.revision, c.applied_position, c.applied_event_id,
       array(select distinct l.stream_id
               from gobo.dead_letters l
              where l.generation = c.generation and l.state in ('failed', 'behind')),
       c.diverged
  from gobo.checkpoints c
 where c.generation = $1 and c.epoch = $2 and c.plugin_hash = $3
