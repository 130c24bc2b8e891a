-- Remove the event that a lane waits for, which was delivered or is dead. Returns the next event of
-- the lane, '' if it is free now, or 0 if it waits for another event. Begins with what a server
-- without memory executes: see acknowledge.lua.
--
-- KEYS: parked, lane, counts, attempts
-- ARGV: call, event id, `delivered` or `dead`

local parked, lane, counts, attempts = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local call, event_id, outcome = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', parked, call) ~= event_id then return 0 end
redis.call('HDEL', attempts, call)
redis.call('LPOP', lane)
redis.call('HINCRBY', counts, outcome, 1)
local event = redis.call('LINDEX', lane, 0)
if not event then
    redis.call('HDEL', parked, call)
    return ''
end
redis.call('HSET', parked, call, cjson.decode(event).id)
return event
