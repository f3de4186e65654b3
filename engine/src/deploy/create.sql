-- A new projection $1 of source $2 with plugin $3 and read models $4: everything but its tables.
with projection as (
    insert into gobo.projections (name, source) values ($1, $2) returning name
), generation as (
    insert into gobo.generations (projection, plugin_hash) select name, $3 from projection returning id, plugin_hash
), checkpoint as (
    insert into gobo.checkpoints (generation, plugin_hash) select id, plugin_hash from generation
), lease as (
    insert into gobo.leases (generation) select id from generation
), read_models as (
    insert into gobo.read_models (name, projection)
    select model, projection.name from projection, unnest($4::text[]) as model
)
select id from generation
