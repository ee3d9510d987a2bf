-- A sliding window as `domain/limit.rs` has it, in one hash; what decides and what settles begin with this file.
-- Fields: `u` units that count, `o` the instant that slots are counted from, `f` and `l` the numbers of the first and the
-- last entry, `n` the latest instant seen, `m` the limit; entries are called by their numbers and hold "instant:units".
-- Instants are microseconds. Everything is whole and below 2^53, so that Lua's numbers are exact.
local WINDOW, SLOTS = 60000000, 256
local SLOT = WINDOW / SLOTS
local KEPT_MS = 120000

-- The server's time, unless the caller gives another one.
local function instant(given)
  if given ~= '' then
    return tonumber(given)
  end
  local now = redis.call('TIME')
  return tonumber(now[1]) * 1000000 + tonumber(now[2])
end

local function entry(window, number)
  local at, units = string.match(redis.call('HGET', window.key, number), '^(%d+):(%d+)$')
  return tonumber(at), tonumber(units)
end

local function write_entry(window, number, at, units)
  redis.call('HSET', window.key, number, string.format('%.0f:%.0f', at, units))
end

local function is_empty(window)
  return window.first > window.last
end

-- Reads a window, and removes what counts no more at its front.
local function read_window(key, now)
  local found = redis.call('HMGET', key, 'u', 'o', 'f', 'l', 'n', 'm')
  -- The server's clock was set back by more than a window: what was counted then has no time any more.
  if found[5] and tonumber(found[5]) - now > WINDOW then
    redis.call('DEL', key)
    found = {}
  end
  local window = {
    key = key,
    used = tonumber(found[1] or 0),
    origin = found[2] and tonumber(found[2]) or nil,
    first = tonumber(found[3] or 1),
    last = tonumber(found[4] or 0),
    now = math.max(now, tonumber(found[5] or 0)),
    limit = tonumber(found[6] or 0),
  }
  while not is_empty(window) do
    local at, units = entry(window, window.first)
    if units > 0 and window.now < at + WINDOW then
      break
    end
    redis.call('HDEL', key, window.first)
    window.used = window.used - units
    window.first = window.first + 1
  end
  return window
end

local function write_window(window)
  redis.call('HSET', window.key, 'u', window.used, 'f', window.first, 'l', window.last, 'n', window.now, 'm', window.limit)
  if window.origin then
    redis.call('HSET', window.key, 'o', window.origin)
  end
  redis.call('PEXPIRE', window.key, KEPT_MS)
end

-- The instant that units taken now count as taken at.
local function effective_instant(window)
  local latest = window.now
  if not is_empty(window) then
    latest = entry(window, window.last)
  end
  if window.limit <= SLOTS then
    return math.max(window.now, latest)
  end
  window.origin = window.origin or window.now
  local slots = math.ceil((window.now - window.origin) / SLOT)
  return math.max(window.origin + slots * SLOT, latest)
end

-- Takes units, whatever the limit is. Returns the number of their entry and their instant.
local function add(window, units)
  local at = effective_instant(window)
  window.used = window.used + units
  if not is_empty(window) then
    local last, there = entry(window, window.last)
    if last >= at then
      write_entry(window, window.last, last, there + units)
      return window.last, at
    end
  end
  window.last = window.last + 1
  write_entry(window, window.last, at, units)
  return window.last, at
end
