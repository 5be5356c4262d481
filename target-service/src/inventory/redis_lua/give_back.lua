-- Takes over one release that the database has committed, once. Numbers for orders that were drawn before it are thrown away:
-- whoever gets these units must have a later place in the ledger than their release.
-- KEYS: open, item, taken, ids, returns. ARGV: generation, place of the release in the ledger, user, quantity.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local applied = tonumber(redis.call('HGET', KEYS[2], 'applied') or '0')
if tonumber(ARGV[2]) <= applied then return 1 end
redis.call('HINCRBY', KEYS[2], 'available', ARGV[4])
redis.call('HINCRBY', KEYS[3], ARGV[3], -tonumber(ARGV[4]))
redis.call('HSET', KEYS[2], 'applied', ARGV[2])
redis.call('DEL', KEYS[4])
redis.call('INCR', KEYS[5])
return 1
