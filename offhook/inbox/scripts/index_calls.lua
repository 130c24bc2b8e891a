-- Put calls that an earlier version has kept into the index. Returns the names of those that have
-- changed since they were read: nothing is done then.
--
-- KEYS: calls
-- ARGV: prefix of the calls' keys, prefix of the index's keys, lifetime of a call in ms,
--       up to when calls have expired in ms since 1970, the calls, then the stored calls in this order
--
-- The calls, as JSON: [[name, ...], terms]; the terms as in save_calls.lua

-- include index.lua
local calls = KEYS[1]
local prefix, index, keep_ms, expired = unpack(ARGV, 1, 4)
local names, terms = unpack(cjson.decode(ARGV[5]))
local changed = {}
for i, name in ipairs(names) do
    if redis.call('GET', prefix .. name) ~= ARGV[5 + i] then changed[#changed + 1] = name end
end
if #changed == 0 then put(index, calls, names, terms, keep_ms, expired) end
return changed
