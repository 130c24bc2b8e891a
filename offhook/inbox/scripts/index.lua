-- Put calls into the index: a sorted set for each term, of calls by when they began. A set goes away
-- `keep_ms` after the last call was put into it. Until then it loses calls that have expired now and
-- then, when another is put into it: they do no harm, because they are not in `calls` any more.
local function put(index, calls, names, terms, keep_ms, expired)
    local began = redis.call('ZMSCORE', calls, unpack(names))
    for _, each in ipairs(terms) do
        local key, new, former, trims = index .. each[1], {}, {}, false
        for _, n in ipairs(each[2]) do
            if began[n] then
                new[#new + 1] = began[n]
                new[#new + 1] = names[n]
                trims = trims or tonumber(began[n]) % 16 == 0
            end
        end
        for _, n in ipairs(each[3]) do former[#former + 1] = names[n] end
        if #new > 0 then
            redis.call('ZADD', key, unpack(new))
            redis.call('PEXPIRE', key, keep_ms)
        end
        if trims then redis.call('ZREMRANGEBYSCORE', key, '-inf', expired) end
        if #former > 0 then redis.call('ZREM', key, unpack(former)) end
    end
end
