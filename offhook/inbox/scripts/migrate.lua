-- Move what an earlier version kept of one handler, or of the fold of calls, to where it is now: its
-- consumer group and its parked lanes.
--
-- A handler that was given a position in the meantime has read nothing from it as long as no server
-- has flushed. After that, a group is a remnant of a process of the earlier version.
--
-- KEYS: inbox, known, behind, read, folded, flushed, parked, attempts, due, unfinished, ready, then
--       of the earlier version: parked, attempts, and what else to delete
-- ARGV: handler, 1 if it is the fold of calls, now in ms, then call and due time in ms of each lane
--       whose due time is known

local inbox, known, behind, read, folded, flushed = unpack(KEYS, 1, 6)
local parked, attempts, due, unfinished, ready = unpack(KEYS, 7, 11)
local old_parked, old_attempts = KEYS[12], KEYS[13]
local handler, is_fold, now = ARGV[1], ARGV[2] == '1', ARGV[3]
local fresh = redis.call('EXISTS', flushed) == 0

local function later(one, other)
    local ms, n = string.match(one, '(%d+)-(%d+)')
    local other_ms, other_n = string.match(other, '(%d+)-(%d+)')
    ms, other_ms = tonumber(ms), tonumber(other_ms)
    return ms > other_ms or (ms == other_ms and tonumber(n) > tonumber(other_n))
end

local function before(position)
    local ms, n = string.match(position, '(%d+)-(%d+)')
    if tonumber(n) > 0 then return string.format('%s-%.0f', ms, n - 1) end
    return string.format('%.0f-18446744073709551615', ms - 1)
end

local function take(position, pending)
    if later(position, redis.call('HGET', read, '') or '0-0') then
        redis.call('HSET', read, '', position)
    end
    if is_fold then
        redis.call('HSET', folded, '', pending[1] and before(pending[1]) or position)
    else
        table.insert(pending, 1, position)
        redis.call('HSET', known, handler, position)
        redis.call('HSET', behind, handler, table.concat(pending, ' '))
    end
end

redis.call('DEL', unpack(KEYS, 14))  -- first: a server without memory executes it, and then the rest
for _, fields in ipairs(redis.call('XINFO', 'GROUPS', inbox)) do
    local group, pending = {}, {}
    for i = 1, #fields, 2 do group[fields[i]] = fields[i + 1] end
    if group['name'] == handler then
        if fresh then
            local count = math.max(1, group['pending'])
            for i, entry in ipairs(redis.call('XPENDING', inbox, handler, '-', '+', count)) do
                pending[i] = entry[1]
            end
            take(group['last-delivered-id'], pending)
        end
        redis.call('XGROUP', 'DESTROY', inbox, handler)
    end
end

local due_at = {}
for i = 4, #ARGV, 2 do due_at[ARGV[i]] = ARGV[i + 1] end
local lanes = redis.call('HGETALL', old_parked)
for i = 1, #lanes, 2 do
    local call, member = lanes[i], handler .. ' ' .. lanes[i]
    redis.call('HSET', parked, member, lanes[i + 1])
    redis.call('HSET', attempts, member, redis.call('HGET', old_attempts, call) or 0)
    redis.call('ZADD', due, due_at[call] or now, member)
end

redis.call('DEL', old_parked, old_attempts)
redis.call('SADD', unfinished, '')
redis.call('ZADD', ready, 'NX', 0, '', 0, '*')
