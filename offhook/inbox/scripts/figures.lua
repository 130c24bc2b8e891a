-- How far handlers have come on the streams of some tenants. Changes nothing.
--
-- KEYS: read
-- ARGV: prefix of the partition's keys; then for each tenant: its name, number of handlers, handlers
--
-- Returns for each tenant: number of its last event, number of events that the inbox has; and for
-- each handler: number of events that it has not read; number of events that it has read and not
-- finished; when the first of all these was accepted, in ms since 1970 by this server's clock, or 0;
-- delivered, failed, dead.

local prefix = ARGV[1]
local answer = {}

local function moment(position)
    return tonumber(string.match(position, '^%d+'))
end

local function stream(tenant, handlers)
    local suffix = tenant == '' and '' or ':' .. tenant
    local inbox, behind = prefix .. 'inbox' .. suffix, prefix .. 'behind' .. suffix
    local newest = tonumber(redis.call('GET', prefix .. 'last' .. suffix) or 0)
    local length = redis.call('XLEN', inbox)
    local shared = redis.call('HGET', KEYS[1], tenant) or '0-0'
    answer[#answer + 1] = newest
    answer[#answer + 1] = length

    local unread = {} -- by position; most handlers have the same
    local function after(position)
        if not unread[position] then
            local found = redis.call('XRANGE', inbox, '(' .. position, '+', 'COUNT', 1)[1]
            local lag, since = 0, 0
            if found then
                since = moment(found[1])
                for i = 1, #found[2], 2 do
                    if found[2][i] == 'n' then lag = newest - tonumber(found[2][i + 1]) + 1 end
                end
            end
            unread[position] = {math.min(lag, length), since}
        end
        return unpack(unread[position])
    end

    for _, handler in ipairs(handlers) do
        local places = {}
        for place in string.gmatch(redis.call('HGET', behind, handler) or '-', '%S+') do
            places[#places + 1] = place
        end
        local lag, since = after(places[1] == '-' and shared or places[1])
        if places[2] then
            local pending = moment(places[2])
            since = since == 0 and pending or math.min(since, pending)
        end
        local counts = redis.call(
            'HMGET', prefix .. 'counts:' .. handler, 'delivered', 'failed', 'dead')
        for _, figure in ipairs({lag, #places - 1, since}) do answer[#answer + 1] = figure end
        for n = 1, 3 do answer[#answer + 1] = tonumber(counts[n] or 0) end
    end
end

local at = 2
while ARGV[at] do
    local handlers = {}
    for i = at + 2, at + 1 + ARGV[at + 1] do handlers[#handlers + 1] = ARGV[i] end
    stream(ARGV[at], handlers)
    at = at + 2 + #handlers
end
return answer
