-- Bytes of plugins that no generation uses and that are not among the last $1 deploys of any projection.
update gobo.plugins p
   set bytes = null
 where p.bytes is not null
   and not exists (select from gobo.generations g where g.plugin_hash = p.hash)
   and not exists (
       select from gobo.projections r
         cross join lateral (select d.plugin_hash, d.previous_hash from gobo.deploys d
                              where d.projection = r.name order by d.id desc limit $1) last
        where p.hash in (last.plugin_hash, last.previous_hash))
