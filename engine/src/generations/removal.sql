-- What projection $1 has besides its tables; nothing if there is no such projection.
select array(select m.name from gobo.read_models m where m.projection = p.name order by m.name),
       (select count(*) from gobo.dead_letters d join gobo.generations g on g.id = d.generation
         where g.projection = p.name and d.state <> 'discarded'),
       p.settings::text <> '{}'
  from gobo.projections p
 where p.name = $1 and p.live is not null
