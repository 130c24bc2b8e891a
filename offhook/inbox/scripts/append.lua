-- Append a batch of events of some tenants, without repeats. Returns the indices of the repeats.
--
-- A mark is written after the append and in the same step, so that a failed append is never taken
-- for a repeat. It says when it was made: if the server's clock is set back it outlives its window,
-- and must not turn a new event into a repeat. The batch has a number, so that a batch that is sent
-- again because its response was lost is appended once. Events have numbers, so that the lag of a
-- handler is a subtraction. The last 10 % of the memory are for the workers: a server that is
-- entirely full refuses their writes too, and could never be emptied. A writer that does not know
-- the number of partitions since its last change would append to a wrong one.
--
-- KEYS: written, ready, unfinished, epoch
-- ARGV: duplicate window in ms, prefix of the partition's keys, number of the batch, 1 to check the
--       memory, epoch that the writer knows, then for each event: tenant, mark, stored event

-- include full.lua
local written, ready, unfinished = KEYS[1], KEYS[2], KEYS[3]
local window, prefix, number = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local keep_written_ms = 7 * 24 * 3600 * 1000

if tonumber(redis.call('GET', KEYS[4]) or 0) > tonumber(ARGV[5]) then
    return redis.error_reply('EPOCH the number of partitions has changed')
end
if ARGV[4] == '1' and full(0.9) then
    return redis.error_reply('OOM the server has used 90 % of maxmemory; the rest is for workers')
end
if number <= tonumber(redis.call('GET', written) or 0) then
    -- A write, so that WAIT and WAITAOF on this connection wait for the batch too.
    redis.call('PEXPIRE', written, keep_written_ms)
    return {}
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stamp = string.format('%.0f', now)
local repeats, streams = {}, {}

local function stream_of(tenant)
    local suffix = tenant == '' and '' or ':' .. tenant
    local last = prefix .. 'last' .. suffix
    local found = {inbox = prefix .. 'inbox' .. suffix, last = last, appended = 0}
    found.before = tonumber(redis.call('GET', last) or 0)
    streams[tenant] = found
    return found
end

for i = 6, #ARGV, 3 do
    local whose = ARGV[i] == '' and '' or ARGV[i] .. ':'
    local mark = prefix .. 'seen:' .. whose .. ARGV[i + 1]
    local made = window > 0 and redis.call('GET', mark)
    if made and math.abs(now - (tonumber(made) or now)) <= window then
        repeats[#repeats + 1] = (i - 6) / 3
    else
        local stream = streams[ARGV[i]] or stream_of(ARGV[i])
        stream.appended = stream.appended + 1
        redis.call(
            'XADD', stream.inbox, '*', 'e', ARGV[i + 2], 'n', stream.before + stream.appended)
        if window > 0 then redis.call('SET', mark, stamp, 'PX', window) end
    end
end
redis.call('SET', written, number, 'PX', keep_written_ms)
for tenant, stream in pairs(streams) do
    redis.call('SET', stream.last, stream.before + stream.appended)
    redis.call('SADD', unfinished, tenant)
    redis.call('ZADD', ready, 'NX', stamp, tenant)
end
return repeats
