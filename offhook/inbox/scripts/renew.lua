-- Renew the lease of a partition. Returns 0 if another process holds it.
--
-- KEYS: serving
-- ARGV: token, lease in ms

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
