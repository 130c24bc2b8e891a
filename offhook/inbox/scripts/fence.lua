-- Refuse appends of earlier epochs in a partition from now on, and note the calls that stay in it:
-- those with events that are not folded yet. The store has all others. Returns 0 if there are too
-- many such events to look at in one step; nothing was fenced then.
--
-- KEYS: epoch, staying, unfinished, folded
-- ARGV: epoch, prefix of the partition's keys, how many events are not too many,
--       then tenants and positions: events up to there have been looked at before

local epoch, staying, unfinished, folded = unpack(KEYS)
local prefix, most = ARGV[2], tonumber(ARGV[3])
if tonumber(redis.call('GET', epoch) or 0) >= tonumber(ARGV[1]) then return 1 end
local looked = {}
for i = 4, #ARGV, 2 do looked[ARGV[i]] = ARGV[i + 1] end
local calls = {}
for _, tenant in ipairs(redis.call('SMEMBERS', unfinished)) do
    local inbox = prefix .. 'inbox' .. (tenant == '' and '' or ':' .. tenant)
    local position = looked[tenant] or redis.call('HGET', folded, tenant) or '0-0'
    local found = redis.call('XRANGE', inbox, '(' .. position, '+', 'COUNT', most + 1)
    for _, entry in ipairs(found) do
        local readable, event = pcall(cjson.decode, entry[2][2])
        if readable and type(event) == 'table' and event.pbx and event.call_id then
            local whose = tenant == '' and '' or tenant .. ':'
            calls[#calls + 1] = whose .. event.pbx .. '/' .. event.call_id
        end
    end
    if #found > most or #calls > most then return 0 end
end
if calls[1] then redis.call('SADD', staying, unpack(calls)) end
redis.call('SET', epoch, ARGV[1])
return 1
