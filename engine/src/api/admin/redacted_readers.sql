-- Every generation that reads source $1: how far it is, and what it may quote of the events at the positions $2.
select g.id, g.projection, g.state, g.purpose, g.label, c.position,
       g.id = any (array(select unnest(r.generations) from gobo.redactions r where r.position = any ($2))) as noted,
       g.purpose <> 'projection' as is_copy,
       exists (select from gobo.deploys d where d.generation = g.id and d.action in ('swapped', 'restored')) as was_swapped,
       (select count(*) from gobo.dead_letters d where d.generation = g.id and d.position = any ($2)) as dead_letters,
       (select count(*) from gobo.plugin_logs l
         where l.generation = g.id and l.position in (
               -- A line carries its batch's last position, and the first batch that ends at or after an event has it.
               select (select min(n.position) from gobo.plugin_logs n
                        where n.generation = g.id and n.position >= p)
                 from unnest($2::int8[]) p)) as log_lines,
       coalesce((c.error ->> 'position')::int8 = any ($2), false) as stopped_there
  from gobo.generations g
  join gobo.checkpoints c on c.generation = g.id
 where g.source = $1 and g.state <> 'dropping'
 order by g.projection, g.id
