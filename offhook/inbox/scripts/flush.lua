-- Write what a server did with one partition since its last flush, in one step: positions, lanes,
-- counts. Returns -1 if another process holds the lease or if Redis has lost the last flush, as in a
-- failover; else an answer to each `advance`.
--
-- A flush has a number, so that one that is sent again because its response was lost is made once,
-- and one that arrives after a later one is not made.
-- The lease is renewed first: a server without memory executes that, and then whatever else the
-- script writes, but refuses a script that begins with another write.
--
-- The record is left out while the server has used 95 % of its memory: the rest is for deliveries,
-- which empty the inbox.
--
-- KEYS: serving, flushed, read, unfinished, due, redelivering, parked, attempts, owners
-- ARGV: token, number, lease in ms, prefix of the partition's keys, changes, then of each part of the
--       record: calls, handlers, handlers that failed (both as JSON), and for each call a line with
--       its attempts; then stored events
--
-- The changes, as JSON: [streams, lanes, counts, tenants of the parts of the record,
--                        latencies]
--   streams: [tenant, position read, finished (0 or 1), pools to wake, [handler, record, ...],
--             [handler, record, ...] of those to write only where there is no position]
--            record: `POSITION PENDING...` ('-' for the stream's position); '' deletes it
--   lanes:   ['park', handler, call, event id, attempts, due in ms, number of events]
--            ['behind', handler, call, number of events]
--            ['advance', handler, call]
--            ['again', handler, call, attempts, due in ms]
--            ['lost', handler, call, due in ms], also if the handler's own pool had it
--            ['pass', handler, call, pool, due in ms]
--            ['give', handler, pool]
--   counts:  [handler, outcome, number]
--   latencies: [field, number]

-- include full.lua
local serving, flushed, read, unfinished, due, redelivering, parked, attempts, owners = unpack(KEYS)
local token, number, lease_ms, prefix = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
if redis.call('GET', serving) ~= token then return -1 end
local by, made = string.match(redis.call('GET', flushed) or '', '^(.*) (%d+)$')
made = by == token and tonumber(made) or 0
if number > made + 1 then return -1 end
redis.call('PEXPIRE', serving, lease_ms)
local changes = cjson.decode(ARGV[5])
local repeated = number <= made
local record_at = 6
local event_at, answers = record_at + 4 * #changes[4], {}

local function push(lane, count)
    for i = event_at, event_at + count - 1 do redis.call('RPUSH', lane, ARGV[i]) end
    event_at = event_at + count
end

local function lane_of(handler, call)
    return prefix .. 'lane:' .. handler .. ':' .. call
end

-- Empty if the event cannot be read: the server sets it aside.
local function id_of(stored)
    local readable, event = pcall(cjson.decode, stored)
    local id = readable and type(event) == 'table' and event.id
    return type(id) == 'string' and id or ''
end

local apply = {}

function apply.park(handler, call, event_id, tried, due_ms, count)
    local member = handler .. ' ' .. call
    push(lane_of(handler, call), count)
    if redis.call('HSETNX', parked, member, event_id) == 1 then
        redis.call('HSET', attempts, member, tried)
        redis.call('ZADD', due, due_ms, member)
    end
end

function apply.behind(handler, call, count)
    push(lane_of(handler, call), count)
end

function apply.advance(handler, call)
    local member, lane = handler .. ' ' .. call, lane_of(handler, call)
    redis.call('LPOP', lane)
    redis.call('HDEL', attempts, member)
    local following = redis.call('LINDEX', lane, 0)
    if following then
        redis.call('HSET', parked, member, id_of(following))
    else
        redis.call('HDEL', parked, member)
        redis.call('SREM', redelivering, member)
    end
end

function apply.again(handler, call, tried, due_ms)
    local member = handler .. ' ' .. call
    redis.call('HSET', attempts, member, tried)
    redis.call('SREM', redelivering, member)
    redis.call('ZADD', due, due_ms, member)
end

function apply.give(handler, pool)
    redis.call('HSET', owners, handler, pool)
end

function apply.lost(handler, call, due_ms)
    local member = handler .. ' ' .. call
    redis.call('ZREM', prefix .. 'due:' .. handler, member)
    redis.call('SREM', prefix .. 'redelivering:' .. handler, member)
    redis.call('SREM', redelivering, member)
    redis.call('ZADD', due, due_ms, member)
end

function apply.pass(handler, call, pool, due_ms)
    local member, suffix = handler .. ' ' .. call, pool == '' and '' or ':' .. pool
    redis.call('SREM', redelivering, member)
    redis.call('ZADD', prefix .. 'due' .. suffix, due_ms, member)
    redis.call('ZADD', prefix .. 'ready' .. suffix, 0, '*')
end

local function record(tenant, calls, handlers, failed, lines)
    local suffix = tenant == '' and '' or ':' .. tenant
    local id = redis.call('XADD', prefix .. 'recorded' .. suffix, '*', 'c', calls, 'h', handlers)
    if failed ~= '[]' then
        redis.call('XADD', prefix .. 'failures' .. suffix, id, 'c', calls, 'h', failed)
    end
    local names, number = cjson.decode(calls), 0
    for line in string.gmatch(lines, '[^\n]+') do
        number = number + 1
        redis.call('RPUSH', prefix .. 'tried:' .. names[number], id .. ' ' .. line)
    end
end

if not repeated then
    for _, change in ipairs(changes[2]) do apply[change[1]](unpack(change, 2)) end
    for _, stream in ipairs(changes[1]) do
        local tenant, position, finished, pools, records, frozen = unpack(stream)
        local suffix = tenant == '' and '' or ':' .. tenant
        local behind = prefix .. 'behind' .. suffix
        redis.call('HSET', read, tenant, position)
        for i = 1, #records, 2 do
            if records[i + 1] == '' then redis.call('HDEL', behind, records[i])
            else redis.call('HSET', behind, records[i], records[i + 1]) end
        end
        for i = 1, #frozen, 2 do
            local known = redis.call('HGET', behind, frozen[i])
            if not known or string.sub(known, 1, 1) == '-' then
                redis.call('HSET', behind, frozen[i], frozen[i + 1])
            end
        end
        for _, pool in ipairs(pools) do
            redis.call('SADD', prefix .. 'unfinished:' .. pool, tenant)
            redis.call('ZADD', prefix .. 'ready:' .. pool, 'NX', 0, tenant)
        end
        -- Ask the stream itself: a mark may have been taken and not yet followed. The same with
        -- replays.
        if finished == 1 and redis.call('EXISTS', prefix .. 'replays' .. suffix) == 0
            and not redis.call(
                'XREAD', 'COUNT', 1, 'STREAMS', prefix .. 'inbox' .. suffix, position)
        then
            redis.call('SREM', unfinished, tenant)
        end
    end
    for _, count in ipairs(changes[3]) do
        redis.call('HINCRBY', prefix .. 'counts:' .. count[1], count[2], count[3])
    end
    if #changes[4] > 0 and not full(0.95) then
        for i, tenant in ipairs(changes[4]) do
            record(tenant, unpack(ARGV, record_at + 4 * i - 4, record_at + 4 * i - 1))
        end
    end
    for _, latency in ipairs(changes[5]) do
        redis.call('HINCRBY', prefix .. 'latency', latency[1], latency[2])
    end
    redis.call('SET', flushed, token .. ' ' .. ARGV[2])
end
for _, change in ipairs(changes[2]) do
    if change[1] == 'advance' then
        answers[#answers + 1] = redis.call('LINDEX', lane_of(change[2], change[3]), 0) or ''
    end
end
return answers
