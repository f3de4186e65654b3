select id, name, hash, roles, claims,
       case when isfinite(expires_at) then extract(epoch from expires_at - clock_timestamp())::float8 end
  from gobo.tokens
 where revoked_at is null and (expires_at is null or expires_at > clock_timestamp())
 order by created_at limit $1
