-- Acknowledge events and count the deliveries. Returns -1 if another process holds the lease.
-- The count comes last: a server without memory executes XACK, which helps to empty it, and then
-- whatever else the script writes, but refuses a script that begins with the count.
--
-- KEYS: awake, inbox, counts
-- ARGV: token, handler, deliveries, then positions

local awake, inbox, counts = KEYS[1], KEYS[2], KEYS[3]
local token, handler, delivered = ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('GET', awake) ~= token then return -1 end
local done = 0
for i = 4, #ARGV, 5000 do
    done = done + redis.call('XACK', inbox, handler, unpack(ARGV, i, math.min(i + 4999, #ARGV)))
end
if delivered > 0 then redis.call('HINCRBY', counts, 'delivered', delivered) end
return done
