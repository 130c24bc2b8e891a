-- Take back an attempt that does not count, because the target is down, and open the circuit.
--
-- KEYS: parked, attempts, circuit
-- ARGV: call, event id, ms until the next probe

local parked, attempts, circuit = KEYS[1], KEYS[2], KEYS[3]
local call, event_id, open_ms = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', parked, call) == event_id then
    redis.call('HINCRBY', attempts, call, -1)
end
redis.call('SET', circuit, 'open', 'NX', 'PX', open_ms)
