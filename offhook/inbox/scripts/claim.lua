-- Claim handlers of a partition for a pool. Returns -1 if another process holds the pool's lease, else
-- the names of those that another pool still serves.
--
-- A handler belongs to the shared pool unless it is in `owners`. A pool's handlers can be claimed when
-- no process serves it, or when it has given them away.
--
-- What the other pool left may be in any stream, so all of them count as unfinished then.
--
-- KEYS: serving, owners, read of the shared pool, unfinished, ready
-- ARGV: token, pool, prefix of the partition's keys, number of handlers, the handlers,
--       then handlers and the pools that they are given to, if they belong to this one

local serving, owners, read, unfinished, ready = unpack(KEYS)
local token, pool, prefix, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if redis.call('GET', serving) ~= token then return -1 end
local refused, claimed = {}, false
for i = 5, 4 + count do
    local owner = redis.call('HGET', owners, ARGV[i]) or ''
    if owner ~= pool then
        local lease = prefix .. 'serving' .. (owner == '' and '' or ':' .. owner)
        if redis.call('EXISTS', lease) == 1 then
            refused[#refused + 1] = ARGV[i]
        else
            claimed = true
            if pool == '' then redis.call('HDEL', owners, ARGV[i])
            else redis.call('HSET', owners, ARGV[i], pool) end
        end
    end
end
for i = 5 + count, #ARGV, 2 do
    if (redis.call('HGET', owners, ARGV[i]) or '') == pool then
        redis.call('HSET', owners, ARGV[i], ARGV[i + 1])
    end
end
if claimed then
    for _, tenant in ipairs(redis.call('HKEYS', read)) do
        redis.call('SADD', unfinished, tenant)
        redis.call('ZADD', ready, 'NX', 0, tenant)
    end
end
return refused
