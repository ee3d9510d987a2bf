-- One decision: a slot, a request and its tokens, or nothing at all.
-- KEYS: the windows of requests and of tokens, the set of slots.
-- ARGV: the time or '', the limits of requests, tokens and slots, each '' where there is none, the tokens that are wanted,
-- the name of the slot, and how long it lasts in microseconds.
-- Answers what refused it (0 nothing, 1 slots, 2 requests, 3 tokens), the wait (-1: for ever), of requests and tokens what is
-- left and when the next unit returns, and where the tokens were taken: number and instant of the entry.
local now = instant(ARGV[1])
local wanted = tonumber(ARGV[5])

local function open(key, limit)
  if limit == '' then
    return nil
  end
  local window = read_window(key, now)
  window.limit = tonumber(limit)
  return window
end

local requests, tokens = open(KEYS[1], ARGV[2]), open(KEYS[2], ARGV[3])

local function left(window)
  if not window then
    return 0, 0
  end
  local reset = 0
  if not is_empty(window) then
    reset = math.max(0, entry(window, window.first) + WINDOW - window.now)
  end
  return math.max(0, window.limit - window.used), reset
end

local function answer(refused_by, wait, number, at)
  local requests_left, requests_reset = left(requests)
  local tokens_left, tokens_reset = left(tokens)
  if requests then
    write_window(requests)
  end
  if tokens then
    write_window(tokens)
  end
  return { refused_by, wait, requests_left, requests_reset, tokens_left, tokens_reset, number or 0, at or 0 }
end

-- How long until so many units would be granted; nil: they are.
local function wait_for(window, units)
  if units <= window.limit - window.used then
    return nil
  end
  if units > window.limit then
    return -1
  end
  local used = window.used
  for number = window.first, window.last do
    local at, there = entry(window, number)
    used = used - there
    if used + units <= window.limit then
      return math.max(0, at + WINDOW - window.now)
    end
  end
  return -1
end

if ARGV[4] ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[4]) then
    return answer(1, -1)
  end
end
local wait = requests and wait_for(requests, 1)
if wait then
  return answer(2, wait)
end
wait = tokens and wait_for(tokens, wanted)
if wait then
  return answer(3, wait)
end
if ARGV[4] ~= '' then
  redis.call('ZADD', KEYS[3], now + tonumber(ARGV[7]), ARGV[6])
  redis.call('PEXPIRE', KEYS[3], KEPT_MS)
end
if requests then
  add(requests, 1)
end
if tokens then
  local number, at = add(tokens, wanted)
  return answer(0, 0, number, at)
end
return answer(0, 0)
