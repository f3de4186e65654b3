-- Plugins, projections, generations, and what the loop keeps of its progress.

create table gobo.plugins (
    hash bytea primary key check (octet_length(hash) = 32),
    bytes bytea not null,
    name text not null,
    version text not null,
    stored_at timestamptz not null default now()
);
comment on table gobo.plugins is 'Plugins as they were deployed, by sha256 of their bytes.';

create table gobo.projections (
    name text primary key,
    live bigint,
    source text not null,
    created_at timestamptz not null default now()
);
comment on column gobo.projections.live is 'The generation that readers see.';

create table gobo.generations (
    id bigint generated always as identity primary key,
    projection text not null references gobo.projections,
    plugin_hash bytea not null references gobo.plugins,
    created_at timestamptz not null default now(),
    deployed_at timestamptz not null default now()
);
comment on table gobo.generations is
    'One materialisation of a projection each: own tables in schema gobo_g<id>, own checkpoint.';
create index on gobo.generations (projection);
alter table gobo.projections
    add foreign key (live) references gobo.generations deferrable initially deferred;

-- The state of a generation. Rows change in the transactions that change the generation's rows.
create table gobo.checkpoints (
    generation bigint primary key references gobo.generations,
    position bigint not null default 0,
    applied_position bigint,
    applied_event_id uuid,
    revision bigint not null default 0,
    epoch bigint not null default 0,
    plugin_hash bytea not null references gobo.plugins,
    error json,
    diverged boolean not null default false,
    updated_at timestamptz not null default now(),
    check ((applied_position is null) = (applied_event_id is null)),
    check (applied_position <= position)
) with (fillfactor = 50);
comment on column gobo.checkpoints.position is
    'Everything up to here is in the rows, is a dead letter, or was not wanted.';
comment on column gobo.checkpoints.applied_position is
    'The last event that was handed to the plugin: it must still be there when the engine comes back.';
comment on column gobo.checkpoints.revision is 'Counts the transactions that changed rows. Never falls.';
comment on column gobo.checkpoints.epoch is 'Who may commit: rises with every change of owner.';
comment on column gobo.checkpoints.error is 'Why the projection stopped; null while it runs.';

-- Apart from the checkpoint, so that renewing a lease never waits for a commit.
create table gobo.leases (
    generation bigint primary key references gobo.generations,
    owner uuid,
    owner_name text,
    expires_at timestamptz not null default '-infinity'
) with (fillfactor = 50);
comment on table gobo.leases is
    'Who runs a generation. Expiry decides who tries; only the epoch decides who commits.';

create table gobo.read_models (
    name text primary key,
    projection text not null references gobo.projections,
    revision bigint not null default 0
) with (fillfactor = 50);
comment on column gobo.read_models.revision is
    'The revision of the last transaction that changed this read model. Never falls.';

create table gobo.dead_letters (
    generation bigint not null references gobo.generations,
    position bigint not null,
    stream_id text not null,
    event_type text not null,
    event_id uuid not null,
    state text not null check (state in ('failed', 'behind', 'skipped', 'discarded')),
    message text,
    attempts integer not null default 1,
    retry boolean not null default false,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (generation, position)
);
comment on column gobo.dead_letters.state is
    'failed: could not be processed, its stream waits; behind: waits behind a failed one; skipped: by policy; discarded: by an operator.';
comment on column gobo.dead_letters.message is 'The error, or the reason for discarding it.';
comment on column gobo.dead_letters.retry is 'An operator asked to try again.';
create index on gobo.dead_letters (generation, stream_id, position);

create table gobo.plugin_logs (
    id bigint generated always as identity primary key,
    projection text not null,
    generation bigint not null,
    logged_at timestamptz not null default now(),
    position bigint not null,
    level text not null,
    message text not null
);
create index on gobo.plugin_logs (projection, id);
comment on column gobo.plugin_logs.position is 'The last event of the batch during which the line was logged.';

create table gobo.watched_files (
    path text primary key,
    hash bytea not null,
    seen_at timestamptz not null default now()
);
comment on table gobo.watched_files is
    'The last bytes that each file of a watched folder brought: an old file never replaces a newer deploy.';

-- Emptied by every recovery from a crash, which may take unflushed commits back: revisions are then given out again, and
-- what was known of them is not true any more.
create unlogged table gobo.incarnation (
    single boolean primary key default true check (single),
    token uuid not null default gen_random_uuid()
);

-- The fence: the first statement of every transaction that changes rows. It moves the checkpoint if, and only if, nothing
-- has changed since the caller computed its batch; else the whole transaction fails.
create function gobo.advance(
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
           set revision = advance.old_revision + 1
         where m.name = any (advance.touched);
    end if;
end
$$;

-- Raised by the upsert of a read model that is declared per stream, when a row belongs to another stream.
create function gobo.refuse_foreign_stream(read_model text) returns bigint
language plpgsql set search_path = pg_catalog as $$
begin
    raise exception using
        errcode = '23G01',
        message = format('a row of read model "%s", which is declared per_stream, is changed by events of two streams', read_model),
        hint = 'Remove per_stream from the read model, or put the stream into its key.';
end
$$;
