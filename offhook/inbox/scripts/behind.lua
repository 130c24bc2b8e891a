-- Does a cursor have events to deliver, but no process that serves it or is being called? Then mark
-- it as waking and return 1. LT: see take.lua.
--
-- KEYS: awake, inbox
-- ARGV: handler, lifetime of `waking` in ms, lease in ms

-- include group.lua
local awake, inbox = KEYS[1], KEYS[2]
local handler, waking_ms, lease_ms = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', awake) == 1 then
    redis.call('PEXPIRE', awake, lease_ms, 'LT')
    return 0
end
local group, unread = group_and_next(inbox, handler)
if not group or (group['pending'] == 0 and not unread) then return 0 end
redis.call('SET', awake, 'waking', 'PX', waking_ms)
return 1
