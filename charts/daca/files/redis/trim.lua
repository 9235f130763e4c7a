-- Cuts from each stream in KEYS the entries that every consumer group has acknowledged; returns how many went.
-- What some group has not been given yet, or was given and has not acknowledged, stays, and so does all of a stream
-- without a group. One script, so that no group is made between the look and the cut.

-- The two numbers of an id. Both fit into Lua's: the first is milliseconds, the second counts entries within one.
local function parts(id)
  local time, count = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(time), tonumber(count)
end

local function earlier(one, other)
  local time, count = parts(one)
  local otherTime, otherCount = parts(other)
  if time < otherTime or (time == otherTime and count < otherCount) then
    return one
  end
  return other
end

local function after(id)
  local time, count = parts(id)
  return string.format('%.0f-%.0f', time, count + 1)
end

local removed = 0
for _, stream in ipairs(KEYS) do
  local keep -- the first id that must stay
  if redis.call('TYPE', stream).ok == 'stream' then
    for _, fields in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      local group = {}
      for i = 1, #fields, 2 do
        group[fields[i]] = fields[i + 1]
      end
      local first = after(group['last-delivered-id'])
      if group.pending > 0 then
        first = earlier(first, redis.call('XPENDING', stream, group.name)[2])
      end
      keep = keep and earlier(keep, first) or first
    end
  end
  if keep then
    removed = removed + redis.call('XTRIM', stream, 'MINID', keep)
  end
end
return removed
