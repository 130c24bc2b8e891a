-- Count an attempt before it is made, because it may kill its process. Returns its number, or 0 if
-- the lane waits for another event.
--
-- KEYS: parked, attempts
-- ARGV: call, event id

local parked, attempts, call, event_id = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if redis.call('HGET', parked, call) ~= event_id then return 0 end
return redis.call('HINCRBY', attempts, call, 1)
