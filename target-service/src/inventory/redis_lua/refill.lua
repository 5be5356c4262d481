-- Adds numbers for orders, unless units came back since they were asked for: then they may lie before a release.
-- KEYS: open, ids, returns. ARGV: generation, returns as they were before, numbers.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if (redis.call('GET', KEYS[3]) or '0') ~= ARGV[2] then return 0 end
for n = 3, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[n]) end
return 1
