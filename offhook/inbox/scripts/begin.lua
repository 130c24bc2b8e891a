-- Begin the redeliveries that are due. Returns -1 if another process holds the lease, else when the
-- next one is due, in ms ('' if none is), then handler and call, number of the attempt and stored
-- event of each. An attempt counts when it has failed, or ended its process.
--
-- KEYS: serving, due, redelivering, parked, attempts
-- ARGV: token, now in ms, maximum number, prefix of the partition's keys

local serving, due, redelivering, parked, attempts = unpack(KEYS)
local token, now, most, prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('GET', serving) ~= token then return -1 end
local begun = {''}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, most)) do
    local space = string.find(member, ' ', 1, true)
    local handler, call = string.sub(member, 1, space - 1), string.sub(member, space + 1)
    local event = redis.call('LINDEX', prefix .. 'lane:' .. handler .. ':' .. call, 0)
    redis.call('ZREM', due, member)
    if event then
        redis.call('SADD', redelivering, member)
        begun[#begun + 1] = member
        begun[#begun + 1] = (tonumber(redis.call('HGET', attempts, member)) or 0) + 1
        begun[#begun + 1] = event
    else
        redis.call('HDEL', parked, member)
    end
end
local following = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
if following[2] then begun[1] = following[2] end
return begun
