-- Generations beside the live one: candidates, kept ones, disposable ones; and what operators decide about them.

alter table gobo.generations
    add column purpose text not null default 'projection'
        check (purpose in ('projection', 'replay', 'snapshot', 'verify')),
    add column state text not null default 'live'
        check (state in ('building', 'live', 'kept', 'done', 'dropping')),
    add column source text,
    add column reason text,
    add column hold boolean not null default false,
    add column bulk boolean not null default false,
    add column paused boolean not null default false,
    add column until bigint check (until >= 0),
    add column until_time timestamptz,
    add column barrier bigint,
    add column barrier_expires timestamptz,
    add column label text,
    add column expires_at timestamptz,
    add column promoted_at timestamptz,
    add column retired_at timestamptz,
    add column trouble text;
update gobo.generations g set source = p.source, promoted_at = g.created_at
  from gobo.projections p where p.name = g.projection;
alter table gobo.generations
    alter column source set not null,
    alter column state set default 'building';

comment on column gobo.generations.purpose is
    'projection: is, was or is to be live; replay and snapshot: the rows at one position; verify: to be compared and dropped.';
comment on column gobo.generations.state is
    'building: on its way; live: what readers see; kept: was live and can be again; done: complete at its position; dropping: its tables go.';
comment on column gobo.generations.hold is 'Promoted only by an operator.';
comment on column gobo.generations.bulk is 'In the fast fill: secondary indexes do not exist yet.';
comment on column gobo.generations.until is 'Where it ends; null: it follows the events.';
comment on column gobo.generations.barrier is
    'Where it waits for a moment, until barrier_expires, so that it can be compared with another one at the same position.';
comment on column gobo.generations.trouble is 'Why it cannot be promoted or dropped at present.';

-- One candidate for each projection, and names are unique within it.
create unique index generations_one_candidate on gobo.generations (projection)
    where purpose = 'projection' and state = 'building';
create unique index generations_label on gobo.generations (projection, label)
    where label is not null and state <> 'dropping';

-- Bytes of plugins that were replaced long ago are given up, not the memory that they were deployed.
alter table gobo.plugins alter column bytes drop not null;
alter table gobo.plugins add column descriptor json;
comment on column gobo.plugins.descriptor is 'What the plugin says of itself; null if an older engine deployed it.';

-- What was decided at run time; it stands above the configuration.
alter table gobo.projections add column settings json not null default '{}';

create table gobo.deploys (
    id bigint generated always as identity primary key,
    projection text not null references gobo.projections on delete cascade,
    generation bigint not null,
    action text not null
        check (action in ('created', 'swapped', 'rebuilding', 'promoted', 'rolled_back', 'restored', 'cancelled')),
    plugin_hash bytea not null references gobo.plugins,
    previous_hash bytea references gobo.plugins,
    detail text not null,
    at timestamptz not null default clock_timestamp()
);
create index on gobo.deploys (projection, id);
comment on table gobo.deploys is 'What happened to a projection, and in which order.';

-- Streams whose rows are to be computed anew, in place, by the loop that owns the generation.
create table gobo.stream_rebuilds (
    generation bigint not null references gobo.generations on delete cascade,
    stream_id text not null,
    requested_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    rows bigint,
    error text,
    primary key (generation, stream_id)
);

alter table gobo.dead_letters drop constraint dead_letters_generation_fkey,
    add foreign key (generation) references gobo.generations on delete cascade;
alter table gobo.checkpoints drop constraint checkpoints_generation_fkey,
    add foreign key (generation) references gobo.generations on delete cascade;
alter table gobo.leases drop constraint leases_generation_fkey,
    add foreign key (generation) references gobo.generations on delete cascade;

-- Each generation has its own lines: the thousands that a rebuild may log do not push out those of the live one.
drop index gobo.plugin_logs_projection_id_idx;
create index on gobo.plugin_logs (generation, id);

-- The fence, as before; but only the live generation's changes count as changes of the read models.
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
           set revision = advance.old_revision + 1
          from gobo.projections p
         where m.name = any (advance.touched) and p.name = m.projection and p.live = advance.generation;
    end if;
end
$$;
