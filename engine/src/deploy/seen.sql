-- The last content of file $1, and whether $2 was deployed before without being live now or about to be.
select (select hash from gobo.watched_files where path = $1) as last,
       exists (select from gobo.plugins where hash = $2)
       and not exists (select from gobo.projections p
                         join gobo.generations g on g.projection = p.name
                        where g.plugin_hash = $2 and (g.id = p.live or g.state = 'building')) as is_superseded
