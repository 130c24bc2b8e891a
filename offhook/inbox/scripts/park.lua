-- Move an event from the cursor to the end of its lane. Returns -1 if another process holds the
-- lease, 0 if the lane is free and the event stays where it is, 1 if the event waits behind others,
-- 2 if the lane waits for this event, which must be redelivered.
--
-- KEYS: awake, inbox, parked, lane, attempts
-- ARGV: token, handler, position, call, event id, stored event, `always` or `behind` (only park it
--       behind other events), attempts made

local awake, inbox, parked, lane, attempts = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local token, handler, position, call = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local event_id, stored, when, made = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
if redis.call('GET', awake) ~= token then return -1 end
local head = redis.call('HGET', parked, call)
if not head and when ~= 'always' then return 0 end
if head ~= event_id then
    redis.call('RPUSH', lane, stored)
    if not head then
        redis.call('HSET', parked, call, event_id)
        redis.call('HSET', attempts, call, made)
        head = event_id
    end
end
redis.call('XACK', inbox, handler, position)
return head == event_id and 2 or 1
