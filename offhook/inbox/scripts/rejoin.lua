-- Put dead letters back at the end of their lanes, unless they are in them. One that is first in its
-- lane, with its attempt begun, does not count: it leaves the lane when its death is noted.
--
-- KEYS: parked, attempts, due, ready
-- ARGV: handler, prefix of the handler's lanes, now in ms, then for each: call, event id, stored event

local parked, attempts, due, ready = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local handler, prefix, now = ARGV[1], ARGV[2], ARGV[3]
for i = 4, #ARGV, 3 do
    local call, event_id, stored = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local member = handler .. ' ' .. call
    local at = redis.call('LPOS', prefix .. call, stored, 'RANK', -1)
    if not at or (at == 0 and not redis.call('ZSCORE', due, member)) then
        redis.call('RPUSH', prefix .. call, stored)
        if redis.call('HSETNX', parked, member, event_id) == 1 then
            redis.call('HDEL', attempts, member)
            redis.call('ZADD', due, now, member)
        end
    end
end
redis.call('ZADD', ready, 'NX', 0, '*')
