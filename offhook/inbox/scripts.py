"""What happens inside the server, in one step each: the scripts of the inbox, in Lua."""

# Has the server used more than a part of the memory that it may use?
_FULL = """
local function full(part)
    local memory = redis.call('INFO', 'memory')
    local most = tonumber(string.match(memory, '[\\r\\n]maxmemory:(%d+)'))
    local used = tonumber(string.match(memory, '[\\r\\n]used_memory:(%d+)'))
    return most > 0 and used > most * part
end
"""

# One run per batch of callbacks: drop repeats, append, tell whom to wake. The mark that an event
# was seen is written after its append and in the same step, so that a failed append is never
# mistaken for a repeat. A batch has a number, so that one whose answer was lost is sent again and
# appended once. Events are numbered, so that a reader sees when somebody else has read, too. The
# last of the memory is left to the workers: a server that is quite full refuses their writes, too,
# and nobody could empty it. A mark says when it was made: one that outlives its window, because the
# server's clock was set back, must not make a repeat of what is none.
APPEND = (
    _FULL
    + """
local number = tonumber(ARGV[4])
if ARGV[5] == '1' and full(0.9) then
    return redis.error_reply('OOM the server has used 90 % of maxmemory; the rest is for workers')
end
if number <= tonumber(redis.call('GET', KEYS[2]) or 0) then
    -- A write, so that who waits for it on this connection waits for the batch, too.
    redis.call('PEXPIRE', KEYS[2], 604800000)
    return {{}, {}}
end
local window, appended, seen = tonumber(ARGV[1]), 0, {}
local last = tonumber(redis.call('GET', KEYS[3]) or 0)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 6, #ARGV, 2 do
    local mark = ARGV[3] .. ARGV[i]
    local made = window > 0 and redis.call('GET', mark)
    if made and math.abs(now - (tonumber(made) or now)) <= window then
        seen[#seen + 1] = (i - 6) / 2
    else
        appended = appended + 1
        redis.call('XADD', KEYS[1], '*', 'e', ARGV[i + 1], 'n', last + appended)
        if window > 0 then
            redis.call('SET', mark, string.format('%.0f', now), 'PX', window)
        end
    end
end
redis.call('SET', KEYS[2], number, 'PX', 604800000)
local wake = {}
if appended > 0 then
    redis.call('SET', KEYS[3], last + appended)
    for i = 4, #KEYS do
        if redis.call('SET', KEYS[i], 'waking', 'NX', 'PX', ARGV[2]) then
            wake[#wake + 1] = i - 4
        end
    end
end
return {seen, wake}
"""
)

# A lease that lasts longer than a lease does (here and below, LT): the server's clock was set back.
TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= 'waking' and holder ~= ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[2], 'LT')
    return redis.call('PTTL', KEYS[1])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
"""

RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

# Give the lease back, but only with nothing left to read: an event that came in the meantime saw
# the lease and woke nobody.
REST = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 1 end
if ARGV[3] == '0' then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
        local is = {}
        for i = 1, #group, 2 do is[group[i]] = group[i + 1] end
        if is['name'] == ARGV[2] then
            local unread = '(' .. is['last-delivered-id']
            if #redis.call('XRANGE', KEYS[2], unread, '+', 'COUNT', 1) > 0 then return 0 end
        end
    end
end
redis.call('DEL', KEYS[1])
return 1
"""

# The number of the event that a cursor will read next; 0: there is no cursor.
NEXT = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local is = {}
    for i = 1, #group, 2 do is[group[i]] = group[i + 1] end
    if is['name'] == ARGV[1] then
        local unread = '(' .. is['last-delivered-id']
        local event = redis.call('XRANGE', KEYS[1], unread, '+', 'COUNT', 1)[1]
        if event then return tonumber(event[2][4]) end
        return tonumber(redis.call('GET', KEYS[2]) or 0) + 1
    end
end
return 0
"""

# The count comes last: a server without memory takes XACK, which it needs to be emptied, and then
# what else the script writes; but it refuses a script that would begin with a count.
ACKNOWLEDGE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local done = 0
for i = 4, #ARGV, 5000 do
    done = done + redis.call('XACK', KEYS[2], ARGV[2], unpack(ARGV, i, math.min(i + 4999, #ARGV)))
end
if tonumber(ARGV[3]) > 0 then redis.call('HINCRBY', KEYS[3], 'delivered', ARGV[3]) end
return done
"""

# Move one event from the cursor to the end of its lane. `always`: the lane begins to wait now, for
# this event, of which so many attempts were made. Otherwise only behind others: 0 means that the
# lane is free again. 2: the lane waits for this event, it must be redelivered.
PARK = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local head = redis.call('HGET', KEYS[3], ARGV[4])
if not head and ARGV[7] ~= 'always' then return 0 end
if head ~= ARGV[5] then
    redis.call('RPUSH', KEYS[4], ARGV[6])
    if not head then
        redis.call('HSET', KEYS[3], ARGV[4], ARGV[5])
        redis.call('HSET', KEYS[5], ARGV[4], ARGV[8])
        head = ARGV[5]
    end
end
redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
return head == ARGV[5] and 2 or 1
"""

# An attempt begins: count it, before it may kill its process. 0: the lane waits for another event.
ATTEMPT = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
"""

# That attempt does not count: the other side is down. Whoever comes next waits until it is due.
SPARE = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
    redis.call('HINCRBY', KEYS[2], ARGV[1], -1)
end
redis.call('SET', KEYS[3], 'open', 'NX', 'PX', ARGV[3])
"""

# The event that a lane waits for is done with (delivered or dead): return the next one of it. It,
# too, begins with what a server without memory takes.
ADVANCE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[4], ARGV[1])
redis.call('LPOP', KEYS[2])
redis.call('HINCRBY', KEYS[3], ARGV[3], 1)
local event = redis.call('LINDEX', KEYS[2], 0)
if not event then
    redis.call('HDEL', KEYS[1], ARGV[1])
    return ''
end
redis.call('HSET', KEYS[1], ARGV[1], cjson.decode(event).id)
return event
"""

# Put a dead letter back at the end of its lane, unless it is in it. 1: it is the first there and
# must be sent.
REJOIN = """
if redis.call('LPOS', KEYS[2], ARGV[3]) then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[3])
return redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
"""

# Free the lease that a process held which is known to be dead, instead of waiting it out.
RELEASE = """
local holder = redis.call('GET', KEYS[1])
if not holder or string.sub(holder, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""

CURSOR_BEHIND = """
if redis.call('EXISTS', KEYS[1]) == 1 then
    redis.call('PEXPIRE', KEYS[1], ARGV[3], 'LT')
    return 0
end
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
    local is = {}
    for i = 1, #group, 2 do is[group[i]] = group[i + 1] end
    if is['name'] == ARGV[1] then
        local unread = '(' .. is['last-delivered-id']
        if is['pending'] > 0 or #redis.call('XRANGE', KEYS[2], unread, '+', 'COUNT', 1) > 0 then
            redis.call('SET', KEYS[1], 'waking', 'PX', ARGV[2])
            return 1
        end
    end
end
return 0
"""

# Keep calls, append what is to be told of them, and acknowledge what they were made from. Whoever
# reads what is told is looked after as with any other event. The very last of the memory is left to
# RQ: without its books no dispatch begins, and the inbox is not emptied.
SAVE_CALLS = (
    _FULL
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local function acknowledge(first, last)
    for i = first, last, 5000 do
        redis.call('XACK', KEYS[2], ARGV[2], unpack(ARGV, i, math.min(i + 4999, last)))
    end
end
local keep, at = ARGV[4], 7 + ARGV[6]
if tonumber(ARGV[at]) > 0 and full(0.95) then
    return redis.error_reply('OOM the server has used 95 % of maxmemory; calls wait for room')
end
acknowledge(7, at - 1)
local appended = at + 1 + ARGV[at] * 5
for i = at + 1, appended - 1, 5 do
    local name, live, settles = ARGV[i], ARGV[i + 3], ARGV[i + 4]
    redis.call('SET', ARGV[5] .. name, ARGV[i + 1], 'PX', keep)
    redis.call('ZADD', KEYS[3], 'NX', ARGV[i + 2], name)
    if live == '' then redis.call('ZREM', KEYS[4], name)
    else redis.call('ZADD', KEYS[4], live, name) end
    if settles == '' then redis.call('ZREM', KEYS[5], name)
    else redis.call('ZADD', KEYS[5], settles, name) end
end
local wake = {}
if #ARGV >= appended then
    local number = tonumber(redis.call('GET', KEYS[6]) or 0)
    for i = appended, #ARGV do
        number = number + 1
        redis.call('XADD', KEYS[2], '*', 'e', ARGV[i], 'n', number)
    end
    redis.call('SET', KEYS[6], number)
    for i = 7, #KEYS do
        if redis.call('SET', KEYS[i], 'waking', 'NX', 'PX', ARGV[3]) then
            wake[#wake + 1] = i - 7
        end
    end
end
return wake
"""
)
