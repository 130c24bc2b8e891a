-- Save calls, append the events about them, and acknowledge the events that they were folded from.
-- Returns -1 if another process holds the lease, else the indices of the handlers that must be
-- woken. The last 5 % of the memory are for RQ: without its own data no dispatch begins, and the
-- inbox is never emptied.
--
-- KEYS: awake, inbox, calls, live, settling, last, then one awake key for each handler
-- ARGV: token, name of the cursor, lifetime of `waking` in ms, lifetime of a call in ms, prefix of
--       the calls' keys,
--       number of positions, the positions,
--       number of calls, for each: name, call, when it began, when its last event came or '', when
--       its settle window ends or '',
--       then the stored events to append

-- include full.lua
local awake, inbox, last = KEYS[1], KEYS[2], KEYS[6]
local calls, live, settling = KEYS[3], KEYS[4], KEYS[5]
local token, cursor, waking_ms, keep_ms, prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local at = 7 + ARGV[6]  -- where the number of calls is
local events_at = at + 1 + ARGV[at] * 5

local function put_or_remove(index, score, name)
    if score == '' then redis.call('ZREM', index, name)
    else redis.call('ZADD', index, score, name) end
end

if redis.call('GET', awake) ~= token then return -1 end
if tonumber(ARGV[at]) > 0 and full(0.95) then
    return redis.error_reply('OOM the server has used 95 % of maxmemory; calls wait for room')
end
for i = 7, at - 1, 5000 do
    redis.call('XACK', inbox, cursor, unpack(ARGV, i, math.min(i + 4999, at - 1)))
end
for i = at + 1, events_at - 1, 5 do
    local name = ARGV[i]
    redis.call('SET', prefix .. name, ARGV[i + 1], 'PX', keep_ms)
    redis.call('ZADD', calls, 'NX', ARGV[i + 2], name)
    put_or_remove(live, ARGV[i + 3], name)
    put_or_remove(settling, ARGV[i + 4], name)
end

local wake = {}
if #ARGV >= events_at then
    local number = tonumber(redis.call('GET', last) or 0)
    for i = events_at, #ARGV do
        number = number + 1
        redis.call('XADD', inbox, '*', 'e', ARGV[i], 'n', number)
    end
    redis.call('SET', last, number)
    for i = 7, #KEYS do
        if redis.call('SET', KEYS[i], 'waking', 'NX', 'PX', waking_ms) then
            wake[#wake + 1] = i - 7
        end
    end
end
return wake
