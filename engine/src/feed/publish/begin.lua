-- Makes a stream the current one: it gets a `refetch`, and so does, as its last entry, the one that was current before.
-- KEYS: the pointer, the stream, the one before (the stream itself if there is none).
-- ARGV: the pointer as it was seen, or empty; the last id of the one before as it was seen, or empty; the revision; for how
-- many milliseconds the one before is kept; then the arguments of the `refetch`. Answers the id of the new stream's entry, or
-- nothing if somebody else was faster.
local function last_id(stream)
    if redis.call('EXISTS', stream) == 0 then return '' end
    local about = redis.call('XINFO', 'STREAM', stream)
    for i = 1, #about, 2 do
        if about[i] == 'last-generated-id' then return about[i + 1] end
    end
end
local function parts(id)
    local time, sequence = string.match(id, '^(%d+)-(%d+)$')
    return tonumber(time), tonumber(sequence)
end
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return false end
if ARGV[1] ~= '' and last_id(ARGV[1]) ~= ARGV[2] then return false end
local revision = tonumber(ARGV[3])
local entry = {unpack(ARGV, 5)}
-- It may have been the current one before (a rollback), or only the pointer was lost.
local last = last_id(KEYS[2])
local sequence = 1
if last ~= '' then
    local time, after = parts(last)
    if time > revision then
        -- The database has forgotten what this tells.
        redis.call('DEL', KEYS[2])
    elseif time == revision then
        sequence = after + 1
    end
end
if KEYS[3] ~= KEYS[2] and ARGV[2] ~= '' then
    local time, after = parts(ARGV[2])
    local id = string.format('%.0f-%.0f', time, after + 1)
    redis.call('XADD', KEYS[3], id, 'next', KEYS[2], unpack(entry))
    redis.call('PEXPIRE', KEYS[3], ARGV[4])
end
local id = redis.call('XADD', KEYS[2], string.format('%.0f-%.0f', revision, sequence), unpack(entry))
redis.call('PERSIST', KEYS[2])
redis.call('SET', KEYS[1], KEYS[2])
return id
