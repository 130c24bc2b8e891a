-- Forget that a handler is to be set back, unless an operator has asked for more meanwhile.
--
-- KEYS: replays
-- ARGV: handler, the position to which it was set back

if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
