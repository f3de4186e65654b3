-- Which of the given event ids are stored (by their index), and in which version.
select (given.n - 1)::int8, stored.version
  from unnest($1::uuid[]) with ordinality as given (id, n)
  join gobo.events stored on stored.event_id = given.id
 order by given.n
