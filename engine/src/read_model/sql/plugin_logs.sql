insert into gobo.plugin_logs (projection, generation, position, level, message)
select $1::text, $2::bigint, l.position, l.level, l.message
  from unnest($3::bigint[], $4::text[], $5::text[]) as l(position, level, message)
