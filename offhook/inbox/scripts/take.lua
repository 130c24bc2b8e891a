-- Take the lease of a cursor. Returns 0, or the milliseconds until the holder's lease ends.
-- LT: a lease that lasts longer than any does is from before the server's clock was set back.
--
-- KEYS: awake
-- ARGV: token, lease in ms

local awake, token, lease_ms = KEYS[1], ARGV[1], ARGV[2]
local holder = redis.call('GET', awake)
if holder and holder ~= 'waking' and holder ~= token then
    redis.call('PEXPIRE', awake, lease_ms, 'LT')
    return redis.call('PTTL', awake)
end
redis.call('SET', awake, token, 'PX', lease_ms)
return 0
