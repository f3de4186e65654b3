select event_id, version, position from gobo.append($1, $2::text::json, $3)
