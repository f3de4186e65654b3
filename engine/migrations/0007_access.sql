-- Tokens: who may ask, with which roles and claims.

create table gobo.tokens (
    id         text primary key check (id ~ '^[0-9a-f]{12}$'),
    name       text not null check (octet_length(name) between 1 and 100),
    hash       bytea not null check (octet_length(hash) = 32),
    roles      text[] not null check (cardinality(roles) between 1 and 100),
    claims     json not null default '{}' check (octet_length(claims::text) <= 8192),
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz
);
comment on table gobo.tokens is
    'Tokens by the part of them that is no secret. A token itself is stored nowhere.';
comment on column gobo.tokens.hash is 'sha256 of the whole token, which holds 256 random bits.';
comment on column gobo.tokens.claims is 'What row rules may compare with: a JSON object.';

-- One that is in force is found by its name.
create unique index on gobo.tokens (name) where revoked_at is null;
