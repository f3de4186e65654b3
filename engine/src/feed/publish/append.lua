-- Adds entries to a stream if it still is the current one and ends where the caller has seen it end.
-- KEYS: the pointer, the stream. ARGV: the last id as it was seen, how many entries are kept, then for each entry its id,
-- the number of its arguments, and these. Answers whether it was so.
if redis.call('GET', KEYS[1]) ~= KEYS[2] or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local about = redis.call('XINFO', 'STREAM', KEYS[2])
for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' and about[i + 1] ~= ARGV[1] then return 0 end
end
local i = 3
while ARGV[i] do
    local count = tonumber(ARGV[i + 1])
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], ARGV[i], unpack(ARGV, i + 2, i + 1 + count))
    i = i + 2 + count
end
return 1
