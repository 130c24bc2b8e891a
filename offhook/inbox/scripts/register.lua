-- Give handlers a position on a tenant's stream, each unless it has one: the end of the stream, or
-- its beginning.
--
-- KEYS: inbox, known, behind, unfinished, ready
-- ARGV: tenant, then for each handler its name and `now` or `earliest`

local inbox, known, behind, unfinished, ready = unpack(KEYS)
local tenant, added = ARGV[1], 0
local last = redis.call('XREVRANGE', inbox, '+', '-', 'COUNT', 1)[1]
for i = 2, #ARGV, 2 do
    if redis.call('HEXISTS', known, ARGV[i]) == 0 then
        local position = ARGV[i + 1] == 'now' and last and last[1] or '0-0'
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
