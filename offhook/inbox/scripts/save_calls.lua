-- Save calls, append the events about them, and note how far the stream has been folded. Returns -1
-- if another process holds the lease, 0 if the fold does not continue from where it is. The last 5 %
-- of the memory are for deliveries: they empty the inbox.
--
-- A save has a number, so that one that is sent again because its response was lost is made once, and
-- one that arrives after a later one is not made.
--
-- KEYS: serving, inbox, calls, live, settling, last, folded, ready, unfinished, saved
-- ARGV: token, number, tenant, lifetime of a call in ms, prefix of the calls' keys,
--       positions from where and to where events were folded ('' and '': none),
--       prefix of the index's keys, up to when calls have expired in ms since 1970,
--       the calls, then the stored calls in this order, and then the stored events to append
--
-- The calls, as JSON; at most 4,000, because `unpack` returns at most 8,000 values:
--   [[name, ...],
--    [when it began, name, ...],
--    [when its last event came, name, ...], [name of a closed call, ...],
--    [when its settle window ends, name, ...], [name of a call without one, ...],
--    [[term, [number of a call that gets it, from 1, ...], [number of a call that loses it, ...]], ...]]

-- include full.lua
-- include index.lua
local serving, inbox, calls, live, settling = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local last, folded, ready, unfinished, saved = unpack(KEYS, 6)
local token, number, tenant, keep_ms, prefix, from, to, index, expired = unpack(ARGV, 1, 9)
local names, began, alive, closed, settles, settled, terms = unpack(cjson.decode(ARGV[10]))
local calls_at = 11
local events_at = calls_at + #names

local function update(list, added, removed)
    if #added > 0 then redis.call('ZADD', list, unpack(added)) end
    if #removed > 0 then redis.call('ZREM', list, unpack(removed)) end
end

if redis.call('GET', serving) ~= token then return -1 end
local by, made = string.match(redis.call('GET', saved) or '', '^(.*) (%d+)$')
if by == token and tonumber(number) <= tonumber(made) then return 1 end
if #names > 0 and full(0.95) then
    return redis.error_reply('OOM the server has used 95 % of maxmemory; calls wait for room')
end
if to ~= '' then
    if (redis.call('HGET', folded, tenant) or '0-0') ~= from then return 0 end
    redis.call('HSET', folded, tenant, to)
end
redis.call('SET', saved, token .. ' ' .. number)
for i, name in ipairs(names) do
    redis.call('SET', prefix .. name, ARGV[calls_at + i - 1], 'PX', keep_ms)
end
if #began > 0 then redis.call('ZADD', calls, 'NX', unpack(began)) end
if #terms > 0 then
    put(index, calls, names, terms, keep_ms, expired)
end
update(live, alive, closed)
update(settling, settles, settled)
if #ARGV >= events_at then
    local count = tonumber(redis.call('GET', last) or 0)
    for i = events_at, #ARGV do
        count = count + 1
        redis.call('XADD', inbox, '*', 'e', ARGV[i], 'n', count)
    end
    redis.call('SET', last, count)
    redis.call('SADD', unfinished, tenant)
    redis.call('ZADD', ready, 'NX', 0, tenant)
end
return 1
