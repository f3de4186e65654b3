-- Where a feed stands. KEYS: the pointer. Answers the name of the current stream and its last id, as far as there are any.
local stream = redis.call('GET', KEYS[1])
if not stream then return {} end
if redis.call('EXISTS', stream) == 0 then return {stream} end
local about = redis.call('XINFO', 'STREAM', stream)
for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' then return {stream, about[i + 1]} end
end
