-- What each commit changed, for those who follow a read model.

alter table gobo.read_models add column previous bigint not null default 0;
comment on column gobo.read_models.previous is
    'The revision before the last commit: who has seen that one has missed nothing before the last one.';

create table gobo.feed (
    read_model text not null,
    revision bigint not null,
    previous bigint not null,
    generation bigint not null,
    position bigint not null,
    committed_at timestamptz not null default clock_timestamp(),
    changes json,
    primary key (read_model, revision)
);
comment on table gobo.feed is
    'One row per commit of a live generation and read model that it changed; trimmed by age and number.';
comment on column gobo.feed.previous is
    'The revision before. If nothing is kept of that one, rows have changed in a way that is not told.';
comment on column gobo.feed.position is 'The checkpoint after the commit.';
comment on column gobo.feed.changes is
    '[{"k": [key], "b": row before or null, "a": row after or null}, ...], rows as row_to_json has them; null: too many to be told.';

-- The fence, as before; it also keeps which revision came before.
create or replace function gobo.advance(
    generation bigint, old_position bigint, old_revision bigint, epoch bigint, plugin_hash bytea,
    new_position bigint, new_applied_position bigint, new_applied_event_id uuid, touched text[]
) returns void
language plpgsql set search_path = pg_catalog as $$
begin
    -- Sent in one go with a "begin" that failed, this would commit on its own, and rows that are refused would be lost.
    if now() = statement_timestamp() then
        raise exception using errcode = '25P01', message = 'gobo.advance() needs a transaction block';
    end if;
    update gobo.checkpoints c
       set position = advance.new_position,
           applied_position = coalesce(advance.new_applied_position, c.applied_position),
           applied_event_id = coalesce(advance.new_applied_event_id, c.applied_event_id),
           revision = case when cardinality(advance.touched) > 0 then c.revision + 1 else c.revision end,
           updated_at = clock_timestamp()
     where c.generation = advance.generation
       and c.position = advance.old_position
       and c.revision = advance.old_revision
       and c.epoch = advance.epoch
       and c.plugin_hash = advance.plugin_hash;
    if not found then
        raise exception using
            errcode = 'GB010',
            message = format('generation %s was taken over or changed meanwhile', advance.generation);
    end if;
    if cardinality(advance.touched) > 0 then
        update gobo.read_models m
           set previous = m.revision,
               revision = advance.old_revision + 1
          from gobo.projections p
         where m.name = any (advance.touched) and p.name = m.projection and p.live = advance.generation;
    end if;
end
$$;
