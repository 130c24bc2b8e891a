-- The number of the event that a cursor reads next, or 0 without a cursor.
--
-- KEYS: inbox, last
-- ARGV: handler

-- include group.lua
local inbox, last, handler = KEYS[1], KEYS[2], ARGV[1]
local group, unread = group_and_next(inbox, handler)
if not group then return 0 end
if unread then return tonumber(unread[2][4]) end
return tonumber(redis.call('GET', last) or 0) + 1
