-- Delete what the record has of attempts before a moment, oldest first, of some parts. Returns
-- whether there may be more.
--
-- KEYS: recorded, failures
-- ARGV: prefix of the lists of attempts, position, number of calls after which to stop

local recorded, failures = KEYS[1], KEYS[2]
local prefix, before, most = ARGV[1], ARGV[2], tonumber(ARGV[3])

local function order(position)
    local milliseconds, number = string.match(position, '^(%d+)-(%d+)')
    return tonumber(milliseconds), tonumber(number)
end

local limit_ms, limit_number = order(before)

local function is_before(position)
    local milliseconds, number = order(position)
    return milliseconds < limit_ms or (milliseconds == limit_ms and number < limit_number)
end

local trimmed = 0
while trimmed < most do
    local part = redis.call('XRANGE', recorded, '-', '+', 'COUNT', 1)[1]
    if not part or not is_before(part[1]) then
        redis.call('XTRIM', failures, 'MINID', before)
        return 0
    end
    for _, call in ipairs(cjson.decode(part[2][2])) do
        local first = redis.call('LINDEX', prefix .. call, 0)
        while first and is_before(first) do
            redis.call('LPOP', prefix .. call)
            first = redis.call('LINDEX', prefix .. call, 0)
        end
        trimmed = trimmed + 1
    end
    redis.call('XDEL', recorded, part[1])
end
return 1
