-- Free the lease of a partition: of a server that stops, or of a process that is known to be dead.
--
-- KEYS: serving
-- ARGV: the token, or what the process's tokens begin with

local serving, prefix = KEYS[1], ARGV[1]
local holder = redis.call('GET', serving)
if not holder or string.sub(holder, 1, #prefix) ~= prefix then return 0 end
return redis.call('DEL', serving)
