-- Delete a handler's attempts from the lists of some calls.
--
-- KEYS: lists of attempts
-- ARGV: handler

local function without(events)
    local left = {}
    for _, event in ipairs(events) do
        local attempts = {}
        for _, attempt in ipairs(event[4]) do
            if attempt[1] ~= ARGV[1] then attempts[#attempts + 1] = attempt end
        end
        if #attempts > 0 then left[#left + 1] = { event[1], event[2], event[3], attempts } end
    end
    return left
end

for _, list in ipairs(KEYS) do
    local kept = {}
    for _, part in ipairs(redis.call('LRANGE', list, 0, -1)) do
        local position, events = string.match(part, '^(%S+) (.*)$')
        local left = without(cjson.decode(events))
        if #left > 0 then kept[#kept + 1] = position .. ' ' .. cjson.encode(left) end
    end
    redis.call('DEL', list)
    for _, part in ipairs(kept) do redis.call('RPUSH', list, part) end
end
