-- Give handlers a position on a tenant's stream, each unless it has one: the end of the stream, or
-- its beginning. A tenant's stream, whose first events may have come before its handlers are given a
-- position, ends where the handlers have read it together.
--
-- KEYS: inbox, known, behind, unfinished, ready, read
-- ARGV: tenant, then for each handler its name and `now` or `earliest`

local inbox, known, behind, unfinished, ready, read = unpack(KEYS)
local tenant, added = ARGV[1], 0
local last
if tenant == '' then
    local entry = redis.call('XREVRANGE', inbox, '+', '-', 'COUNT', 1)[1]
    last = entry and entry[1]
else
    last = redis.call('HGET', read, tenant)
end
for i = 2, #ARGV, 2 do
    if redis.call('HEXISTS', known, ARGV[i]) == 0 then
        local position = ARGV[i + 1] == 'now' and last or '0-0'
        redis.call('HSET', known, ARGV[i], position)
        redis.call('HSET', behind, ARGV[i], position)
        added = added + 1
    end
end
if added > 0 then
    redis.call('SADD', unfinished, tenant)
    redis.call('ZADD', ready, 'NX', 0, tenant)
end
return added
