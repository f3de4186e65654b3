-- Where the live generation $1 is, and whether its code was replaced while it ran: then its rows are the work of several plugins.
select c.position,
       exists (select from gobo.deploys d where d.generation = $1 and d.action in ('swapped', 'restored')) as was_swapped
  from gobo.checkpoints c
 where c.generation = $1
