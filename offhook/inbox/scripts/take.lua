-- Take the lease of a partition. Returns 0, or the milliseconds until the holder's lease ends.
-- LT: a lease that lasts longer than any does is from before the server's clock was set back.
--
-- KEYS: serving
-- ARGV: token, lease in ms, the process's token before

local serving, token, lease_ms, before = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local holder = redis.call('GET', serving)
if holder and holder ~= token and holder ~= before then
    redis.call('PEXPIRE', serving, lease_ms, 'LT')
    return redis.call('PTTL', serving)
end
redis.call('SET', serving, token, 'PX', lease_ms)
return 0
