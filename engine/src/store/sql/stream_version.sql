select version from gobo.events where stream_id = $1 order by stream_id desc, version desc limit 1
