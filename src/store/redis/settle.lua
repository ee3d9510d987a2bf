-- The end of a request: its slot is free, and its tokens become those it used.
-- KEYS: the window of tokens, the set of slots.
-- ARGV: the time or '', the name of the slot or '', number and instant of the entry that its tokens were taken in ('' where
-- they stay as they are), the tokens taken, the tokens used.
if ARGV[2] ~= '' then
  redis.call('ZREM', KEYS[2], ARGV[2])
end
if ARGV[3] == '' then
  return
end
local window = read_window(KEYS[1], instant(ARGV[1]))
local number, taken, used = tonumber(ARGV[3]), tonumber(ARGV[5]), tonumber(ARGV[6])
if used > taken then
  add(window, used - taken)
elseif window.first <= number and number <= window.last then
  local at, there = entry(window, number)
  -- Another entry may have its number once it was removed.
  if at == tonumber(ARGV[4]) then
    local back = math.min(taken - used, there)
    window.used = window.used - back
    write_entry(window, number, at, there - back)
    -- The last entry is never empty: the next one counts from it.
    while not is_empty(window) do
      local _, units = entry(window, window.last)
      if units > 0 then
        break
      end
      redis.call('HDEL', window.key, window.last)
      window.last = window.last - 1
    end
  end
end
write_window(window)
