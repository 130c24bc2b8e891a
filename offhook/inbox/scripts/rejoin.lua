-- Put a dead letter at the end of its lane, unless it is in it. Returns 1 if it is the first there
-- and must be redelivered.
--
-- KEYS: parked, lane
-- ARGV: call, event id, stored event

local parked, lane, call, event_id, stored = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
if redis.call('LPOS', lane, stored) then return 0 end
redis.call('RPUSH', lane, stored)
return redis.call('HSETNX', parked, call, event_id)
