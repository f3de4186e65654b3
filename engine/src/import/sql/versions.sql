-- The version of each stream's last event, in the order asked; -1 when there is no such stream.
select coalesce((select version from gobo.events e where e.stream_id = asked.id
                  order by e.stream_id desc, e.version desc limit 1), -1)
  from unnest($1::text[]) with ordinality as asked (id, n)
 order by n
