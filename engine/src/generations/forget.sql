-- Generation $1 of projection $2 is gone, and with it what its commits changed, and the names of read models that no other
-- generation has.
with gone as (
    delete from gobo.generations where id = $1
), logs as (
    delete from gobo.plugin_logs where generation = $1
), changes as (
    delete from gobo.feed where generation = $1
), models as (
    delete from gobo.read_models m
     where m.projection = $2
       and not exists (select from gobo.generations g
                         join pg_namespace n on n.nspname = 'gobo_g' || g.id
                         join pg_class c on c.relnamespace = n.oid and c.relname = m.name
                        where g.projection = $2 and g.id <> $1)
    returning m.name
)
delete from gobo.feed f using models where f.read_model = models.name and f.generation <> $1
