-- The newest thousand lines of a generation are kept.
delete from gobo.plugin_logs
 where generation = $1
   and id <= (select id from gobo.plugin_logs where generation = $1 order by id desc offset 1000 limit 1)
