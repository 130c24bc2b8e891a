-- Note how many partitions new calls are spread over from now on. Returns the number before, or ''.
--
-- Each change begins an epoch. Epochs are times, so that a record that was lost, as in a failover,
-- does not begin with one that has been.
--
-- KEYS: partitions
-- ARGV: number, layout of the keys

local record, number = KEYS[1], ARGV[1]
redis.call('HSETNX', record, 'layout', ARGV[2])
local current = redis.call('HGET', record, 'current')
if current ~= number then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local epoch = math.max(now, (tonumber(redis.call('HGET', record, 'epoch')) or 0) + 1)
    redis.call('HDEL', record, number)
    redis.call(
        'HSET', record, 'current', number, 'epoch', string.format('%.0f', epoch),
        -- The field of an earlier number says until when it was in use.
        unpack(current and { current, string.format('%.0f', now) } or {})
    )
end
return current or ''
