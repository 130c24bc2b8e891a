-- Free the lease of a process that is known to be dead, instead of waiting until it ends.
--
-- KEYS: awake
-- ARGV: what the process's tokens begin with

local awake, prefix = KEYS[1], ARGV[1]
local holder = redis.call('GET', awake)
if not holder or string.sub(holder, 1, #prefix) ~= prefix then return 0 end
return redis.call('DEL', awake)
