-- Generation $2 of projection $1 takes over from generation $3, which stops if $4.
with live as (
    update gobo.projections p set live = $2, source = g.source from gobo.generations g where p.name = $1 and g.id = $2
)
update gobo.generations
   set state = case id when $2 then 'live' else 'kept' end,
       promoted_at = case id when $2 then now() else promoted_at end,
       retired_at = case id when $2 then null else now() end,
       paused = id = $3 and $4,
       hold = false, trouble = null
 where id in ($2, $3)
