-- The event store: one table that is only ever appended to, and the function that appends to it.

create table gobo.events (
    -- The global order. Drawn by the server, one value at a time (CACHE 1), so that no session holds back a block of
    -- values: the rule that no reader skips an event depends on it.
    position    bigint generated always as identity (cache 1) primary key,
    -- 512 bytes fit a B-tree entry with room to spare. "C" compares bytes: faster, and the same on every system.
    stream_id   text collate "C" not null check (octet_length(stream_id) between 1 and 512),
    version     bigint not null check (version >= 0),
    type        text collate "C" not null check (octet_length(type) between 1 and 256),
    -- json, not jsonb: the text is handed on unread, and reading it is twice as fast.
    data        json not null,
    metadata    json,
    event_id    uuid not null,
    -- When it happened, as its producer says; when it was stored, as this server says.
    occurred_at timestamptz not null default clock_timestamp() check (isfinite(occurred_at)),
    recorded_at timestamptz not null default clock_timestamp() check (isfinite(recorded_at)),
    constraint events_stream_version unique (stream_id, version),
    constraint events_event_id unique (event_id)
);

comment on table gobo.events is
    'Every event, in order of position. Append with gobo.append(); rows are never changed or deleted.';

-- Wakes readers up. It is only a hint: they poll as well, so an installation whose many writers suffer from the lock
-- that NOTIFY takes at commit can switch it off:  alter table gobo.events disable trigger events_wake_readers;
create function gobo.wake_readers() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_notify('gobo_events', '');
    return null;
end
$$;

create trigger events_wake_readers after insert on gobo.events
    for each statement execute function gobo.wake_readers();

-- Guards against accidents. Whoever must change an event (to erase a person's data, say) states it in the transaction.
create function gobo.refuse_to_change_events() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if coalesce(current_setting('gobo.change_events', true), '') <> 'on' then
        raise exception 'events are never changed or deleted (% on gobo.events)', lower(tg_op)
            using errcode = 'object_not_in_prerequisite_state',
                  hint = 'Append an event that corrects the other one. If it must be: set local gobo.change_events = ''on'';';
    end if;
    return null;
end
$$;

create trigger events_stay_as_they_are before update or delete or truncate on gobo.events
    for each statement execute function gobo.refuse_to_change_events();

-- How far each `gobo import` has come: committed together with the events themselves.
create table gobo.imports (
    name          text primary key,
    -- Of the decompressed text, all of it up to here is imported.
    bytes         bigint not null check (bytes >= 0),
    lines         bigint not null check (lines >= 0),
    prefix_sha256 bytea not null check (octet_length(prefix_sha256) = 32),
    last_position bigint not null,
    started_at    timestamptz not null default clock_timestamp(),
    updated_at    timestamptz not null default clock_timestamp(),
    finished_at   timestamptz
);

-- Says which event of an append cannot be stored, and why: raises GB003. Only called once it is known that one cannot.
create function gobo.raise_refusal(events json) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    reason text;
    detail text;
    event  json;
    index  bigint;
begin
    for event, index in select * from json_array_elements(events) with ordinality loop
        index := index - 1;
        begin
            reason := null;
            if json_typeof(event) <> 'object' then
                reason := format('an event is an object, not %s', json_typeof(event));
            else
                reason := gobo.refusal(event);
            end if;
        exception
            when untranslatable_character then
                reason := 'it contains \u0000, which PostgreSQL cannot store as text';
            when statement_too_complex then
                reason := 'it is nested deeper than 100';
            when others then
                get stacked diagnostics detail = pg_exception_detail;
                reason := concat_ws(': ', sqlerrm, nullif(detail, ''));
        end;
        if reason is not null then
            raise exception 'event % cannot be stored: %', index, reason
                using errcode = 'GB003',
                      detail = json_build_object('index', index, 'reason', reason)::text;
        end if;
    end loop;
    raise exception 'the events cannot be stored' using errcode = 'GB003';
end
$$;

-- Why one event (a JSON object) cannot be stored: null when it can. Raises what its casts raise.
create function gobo.refusal(event json) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    found    text;
    kind     json := event -> 'type';
    id       json := event -> 'event_id';
    happened json := event -> 'occurred_at';
    parsed   jsonb;
begin
    -- First of all, because it looks at every name and string: \u0000 and lone surrogates.
    parsed := event::jsonb;
    select k into found from json_object_keys(event) k
        where k not in ('type', 'data', 'metadata', 'event_id', 'occurred_at') limit 1;
    if found is not null then
        return format('it has an unknown member %s (known: type, data, metadata, event_id, occurred_at)', to_json(found));
    end if;
    if kind is null or json_typeof(kind) <> 'string' or octet_length(kind #>> '{}') = 0 then
        return 'its type is missing (a string that is not empty)';
    end if;
    if octet_length(kind #>> '{}') > 256 then
        return 'its type is longer than 256 bytes';
    end if;
    if coalesce(json_typeof(event -> 'data'), 'null') = 'null' then
        return 'its data is missing';
    end if;
    if coalesce(json_typeof(event -> 'metadata'), 'null') not in ('null', 'object') then
        return format('its metadata is not an object but %s', json_typeof(event -> 'metadata'));
    end if;
    if gobo.too_deep(event -> 'data') or gobo.too_deep(event -> 'metadata') then
        return 'it is nested deeper than 100';
    end if;
    if id is not null and json_typeof(id) <> 'null' then
        if json_typeof(id) <> 'string' then
            return 'its event_id is not a string';
        end if;
        perform (id #>> '{}')::uuid;
    end if;
    if happened is not null and json_typeof(happened) <> 'null' then
        if json_typeof(happened) <> 'string' then
            return 'its occurred_at is not a string';
        end if;
        perform gobo.moment(happened #>> '{}');
    end if;
    return null;
end
$$;

-- Whether arrays and objects are nested deeper than 100. The costly look is only taken if there are that many.
create function gobo.too_deep(document json) returns boolean
language sql immutable as $$
    select case
        when octet_length(document::text) - octet_length(translate(document::text, '[{', '')) <= 100 then false
        else jsonb_path_exists(document::jsonb, 'strict $.**{100} ? (@.type() == "array" || @.type() == "object")')
    end
$$;

-- A moment from its text: ISO 8601 with an offset, so that no session's settings have a say and nothing is infinite.
create function gobo.moment(given text) returns timestamptz
language plpgsql immutable strict as $$
begin
    if given !~ '^\d{4}-\d{2}-\d{2}[Tt ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?([Zz]|[+-](0\d|1[0-5])(:?[0-5]\d)?)$' then
        raise exception 'occurred_at % is not a moment such as 2026-01-31T12:00:00.5Z', to_json(given)
            using errcode = 'invalid_datetime_format';
    end if;
    return given::timestamptz;
end
$$;

-- Appends `events` (a JSON array of {"type", "data", "metadata"?, "event_id"?, "occurred_at"?}) to a stream, in order and
-- all or none, within the caller's transaction. Answers one row per event, in order.
--
-- `expected_version` is 'any', 'none' (the stream must not exist) or the version of the stream's last event; the first
-- event of a stream has version 0. An append whose events are all stored already, in this order and with this content,
-- answers as it did the first time; that is judged before the version.
--
-- Raises GB001 when the version is another one (DETAIL {"expected", "actual_version"}), GB002 when an event_id is taken
-- (DETAIL {"event_ids"}), GB003 when something cannot be stored (DETAIL {"index", "reason"} when it is an event), and
-- 40001 when somebody got in between in a way that this transaction's snapshot cannot show: run the transaction again.
create function gobo.append(stream_id text, events json, expected_version text default 'any')
returns table (event_id uuid, version bigint, "position" bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
-- The plans are cached per session, perhaps made while the table was still small: never let them scan it.
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    wanted    integer;
    sound     boolean;
    types     text[];
    datas     json[];
    metadatas json[];
    ids       uuid[];
    moments   timestamptz[];
    found     bigint;
    same      boolean;
    taken     uuid[];
    last      bigint;
    stored    bigint;
begin
    if append.stream_id is null or octet_length(append.stream_id) not between 1 and 512 then
        raise exception 'a stream_id has 1 to 512 bytes, this one %', coalesce(octet_length(append.stream_id), 0)
            using errcode = 'GB003';
    end if;
    if append.expected_version is null or append.expected_version !~ '^(any|none|\d{1,18})$' then
        raise exception 'expected_version is any, none or a version, not %', coalesce(append.expected_version, 'null')
            using errcode = 'GB003';
    end if;
    if append.events is null or json_typeof(append.events) <> 'array' then
        raise exception 'events is not a JSON array' using errcode = 'GB003';
    end if;
    wanted := json_array_length(append.events);
    if wanted not between 1 and 10000 then
        raise exception 'an append has 1 to 10000 events, this one %', wanted using errcode = 'GB003';
    end if;

    -- In one go, and only yes or no: which event is at fault, and why, is looked for when the answer is no.
    begin
        select bool_and((
                   -- The cast refuses NUL and surrogate escapes and numbers that jsonb could not hold.
                   e.event::jsonb - '{type,data,metadata,event_id,occurred_at}'::text[] = '{}'
                   and json_typeof(e.type) = 'string' and octet_length(e.type #>> '{}') between 1 and 256
                   and e.data is not null
                   and (e.metadata is null or json_typeof(e.metadata) = 'object')
                   and (e.event_id is null or json_typeof(e.event_id) = 'string')
                   and (e.occurred_at is null or json_typeof(e.occurred_at) = 'string')
                   and (octet_length(e.event::text) - octet_length(translate(e.event::text, '[{', '')) <= 100
                        or not (gobo.too_deep(e.data) or coalesce(gobo.too_deep(e.metadata), false)))
               ) is true),
               array_agg(e.type #>> '{}'), array_agg(e.data), array_agg(e.metadata),
               array_agg((e.event_id #>> '{}')::uuid), array_agg(gobo.moment(e.occurred_at #>> '{}'))
          into sound, types, datas, metadatas, ids, moments
          from rows from (
              json_to_recordset(append.events)
                  as (type json, data json, metadata json, event_id json, occurred_at json),
              json_array_elements(append.events)
          ) as e (type, data, metadata, event_id, occurred_at, event);
    exception
        when data_exception or program_limit_exceeded then
            sound := false;
    end;
    if not sound then
        perform gobo.raise_refusal(append.events);
    end if;

    -- One append at a time per stream. Every statement from here on sees what the one before it committed, unless the
    -- caller's transaction holds on to an older snapshot (REPEATABLE READ).
    perform pg_advisory_xact_lock(hashtextextended(append.stream_id, 7265696));

    if cardinality(array_remove(ids, null)) > 0 then
        select array_agg(twice.id) into taken
          from (select id from unnest(ids) id where id is not null group by id having count(*) > 1 limit 10) twice;
        if taken is not null then
            raise exception 'the append has event_id % twice', array_to_string(taken, ', ')
                using errcode = 'GB002', detail = json_build_object('event_ids', taken)::text;
        end if;
        select count(*),
               coalesce(bool_and(s.in_order and s.same), false),
               (array_agg(s.event_id order by s.in_order and s.same, s.n))[1:10]
          into found, same, taken
          from (
              select o.event_id, g.n,
                     o.version > coalesce(lag(o.version) over (order by g.n), -1) as in_order,
                     o.stream_id = append.stream_id and o.type = types[g.n]
                         and o.data::jsonb = datas[g.n]::jsonb
                         and o.metadata::jsonb is not distinct from metadatas[g.n]::jsonb
                         and (moments[g.n] is null or o.occurred_at = moments[g.n]) as same
                from unnest(ids) with ordinality as g (id, n)
                join gobo.events o on o.event_id = g.id
          ) s;
        if found = wanted and same then
            return query
                select o.event_id, o.version, o.position
                  from unnest(ids) with ordinality as g (id, n) join gobo.events o on o.event_id = g.id
                 order by g.n;
            return;
        end if;
        if found > 0 then
            raise exception 'event_id % is taken: % of the % events exist already%', array_to_string(taken, ', '),
                    found, wanted, case when found = wanted then ', with other content or in another order' else '' end
                using errcode = 'GB002', detail = json_build_object('event_ids', taken)::text;
        end if;
    end if;

    select e.version into last from gobo.events e
     where e.stream_id = append.stream_id order by e.version desc limit 1;
    if append.expected_version <> 'any'
       and append.expected_version <> coalesce(last::text, 'none')
       -- Leading zeros.
       and (append.expected_version = 'none' or append.expected_version::bigint is distinct from last) then
        raise exception 'stream % %, not %', to_json(append.stream_id),
                case when last is null then 'does not exist' else 'is at version ' || last end,
                case append.expected_version when 'none' then 'new' else 'at ' || append.expected_version end
            using errcode = 'GB001',
                  detail = json_build_object('expected', append.expected_version, 'actual_version', last)::text;
    end if;

    -- A conflict is left out, or fails a REPEATABLE READ transaction with 40001. The sort lies below the identity's
    -- default, so positions ascend in the order of the array.
    return query
        insert into gobo.events as e (stream_id, version, type, data, metadata, event_id, occurred_at)
        select append.stream_id, coalesce(last, -1) + g.n, g.type, g.data, g.metadata,
               coalesce(g.id, gen_random_uuid()), coalesce(g.moment, clock_timestamp())
          from unnest(types, datas, metadatas, ids, moments)
               with ordinality as g (type, data, metadata, id, moment, n)
         order by g.n
        on conflict do nothing
        returning e.event_id, e.version, e.position;
    get diagnostics stored = row_count;
    if stored <> wanted then
        -- Another stream's append, or an import, that committed after the look above.
        raise exception 'stream % or an event_id was taken while this append ran: run it again', to_json(append.stream_id)
            using errcode = 'serialization_failure';
    end if;
end
$$;
