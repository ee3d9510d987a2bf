-- Slots of requests that still run last from now on; one that the server has forgotten is there again.
-- KEYS: the set of slots. ARGV: how long they last in microseconds, then the names of slots.
local now = redis.call('TIME')
local ends = tonumber(now[1]) * 1000000 + tonumber(now[2]) + tonumber(ARGV[1])
for number = 2, #ARGV do
  redis.call('ZADD', KEYS[1], ends, ARGV[number])
end
redis.call('PEXPIRE', KEYS[1], 120000)
