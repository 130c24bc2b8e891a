-- Give the lease back. Returns 0 if events are waiting: their writer saw the lease and woke no
-- other process, so the holder must go on.
--
-- KEYS: awake, inbox
-- ARGV: token, handler, 1 to give it back even then

-- include group.lua
local awake, inbox = KEYS[1], KEYS[2]
local token, handler, always = ARGV[1], ARGV[2], ARGV[3] == '1'
if redis.call('GET', awake) ~= token then return 1 end
if not always then
    local _, unread = group_and_next(inbox, handler)
    if unread then return 0 end
end
redis.call('DEL', awake)
return 1
