-- Projections that were removed and have no generation left, with what their loops said to the end.
with gone as (
    delete from gobo.projections p
     where p.live is null and not exists (select from gobo.generations g where g.projection = p.name)
    returning p.name
)
delete from gobo.plugin_logs l using gone where l.projection = gone.name
