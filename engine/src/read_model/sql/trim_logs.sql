-- The newest thousand lines of a projection are kept.
delete from gobo.plugin_logs
 where projection = $1
   and id <= (select id from gobo.plugin_logs where projection = $1 order by id desc offset 1000 limit 1)
