-- The handler's consumer group, and the first entry that it has not read: each nil if there is none.
local function group_and_next(inbox, handler)
    if redis.call('EXISTS', inbox) == 0 then return nil, nil end
    for _, fields in ipairs(redis.call('XINFO', 'GROUPS', inbox)) do
        local group = {}
        for i = 1, #fields, 2 do group[fields[i]] = fields[i + 1] end
        if group['name'] == handler then
            local unread = '(' .. group['last-delivered-id']
            return group, redis.call('XRANGE', inbox, unread, '+', 'COUNT', 1)[1]
        end
    end
    return nil, nil
end
