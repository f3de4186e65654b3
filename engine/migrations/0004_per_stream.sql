-- What a late retry has to be held against, so that a result which a replay would not give does not go unnoticed.

create table gobo.absent_keys (
    generation bigint not null references gobo.generations on delete cascade,
    read_model text not null,
    key bytea not null check (octet_length(key) = 32),
    stream_id text not null,
    freed boolean not null,
    position bigint not null,
    primary key (generation, read_model, key, stream_id)
);
comment on table gobo.absent_keys is
    'Keys of per_stream read models at which events found no row, or left none, while other streams waited behind dead letters.';
comment on column gobo.absent_keys.key is 'sha256 of the key''s fields.';
comment on column gobo.absent_keys.stream_id is
    'The stream whose dead letters were retried then; empty for streams that did not wait.';
comment on column gobo.absent_keys.freed is 'A row may have been deleted there; else one was looked for.';
comment on column gobo.absent_keys.position is 'The last event that did.';

alter table gobo.checkpoints add column absent_keys integer not null default 0;
comment on column gobo.checkpoints.absent_keys is 'How many rows of gobo.absent_keys the generation has.';
