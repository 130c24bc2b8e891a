-- Has Redis used more than this part of maxmemory?
local function full(part)
    local memory = redis.call('INFO', 'memory')
    local limit = tonumber(string.match(memory, '[\r\n]maxmemory:(%d+)'))
    local used = tonumber(string.match(memory, '[\r\n]used_memory:(%d+)'))
    return limit > 0 and used > limit * part
end
