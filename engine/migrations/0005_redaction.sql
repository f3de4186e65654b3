-- Taking an event's content back: a person's data, a secret that was appended by mistake.

create table gobo.redactions (
    id          bigint generated always as identity primary key,
    position    bigint not null unique,
    event_type  text not null,
    reason      text not null,
    generations bigint[] not null default '{}',
    redacted_at timestamptz not null default clock_timestamp()
);
comment on table gobo.redactions is
    'Events whose content was taken back. Their positions, streams, versions and identities stay.';
comment on column gobo.redactions.event_type is 'The type that the event was appended with.';
comment on column gobo.redactions.generations is
    'The generations that had read it by then: their rows may have come from it.';

-- Takes back what the events at `positions` say, within the caller's transaction, and gives those that it changed. Without
-- a `replacement`, the data becomes {"redacted": true, "reason", "at", "type"} and the type "$redacted", which no plugin asks
-- for by its name: a rebuild goes past it. With one, the type stays, and a plugin reads the replacement. What was noted
-- beside the event (metadata) goes in both cases. Doing it again changes nothing.
--
-- Raises GB003 when the replacement could not have been appended.
create function gobo.redact(positions bigint[], reason text, replacement json default null)
returns table ("position" bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    refused text;
    moment  timestamptz := clock_timestamp();
begin
    if redact.reason is null or octet_length(redact.reason) not between 1 and 1000 then
        raise exception 'a redaction has a reason of 1 to 1000 bytes' using errcode = 'GB003';
    end if;
    if redact.replacement is not null then
        begin
            refused := gobo.refusal(json_build_object('type', 'x', 'data', redact.replacement));
        exception
            when untranslatable_character then
                refused := 'it contains \u0000, which PostgreSQL cannot store as text';
            when statement_too_complex then
                refused := 'it is nested deeper than 100';
            when data_exception or program_limit_exceeded then
                refused := sqlerrm;
        end;
        if refused is not null then
            raise exception 'the event cannot be replaced: %', refused using errcode = 'GB003';
        end if;
    end if;
    -- For these statements alone: see refuse_to_change_events().
    perform set_config('gobo.change_events', 'on', true);
    return query
        with before as (
            select e.position, e.type from gobo.events e
             where e.position = any (redact.positions)
               and case when redact.replacement is null then e.type <> '$redacted' or e.metadata is not null
                        else e.data::text <> redact.replacement::text or e.metadata is not null end
               for update
        ), changed as (
            update gobo.events e
               set type = case when redact.replacement is null then '$redacted' else e.type end,
                   data = coalesce(redact.replacement, json_build_object(
                       'redacted', true, 'reason', redact.reason, 'at', moment, 'type', before.type)),
                   metadata = null
              from before
             where e.position = before.position
            returning e.position, before.type as was
        ), noted as (
            insert into gobo.redactions as r (position, event_type, reason, redacted_at)
            select c.position, c.was, redact.reason, moment from changed c
            -- A new number: whoever has read the events since the last one reads them again.
            on conflict (position) do update
                set id = default, reason = excluded.reason, redacted_at = excluded.redacted_at
        )
        select c.position from changed c order by c.position;
    perform set_config('gobo.change_events', '', true);
end
$$;
