-- Deducts for one buyer, once per key. Nothing else runs in Redis meanwhile, so what is looked at holds.
-- KEYS: open, item, taken, key, ids, stream, pending. ARGV: generation, item, user, key, quantity, now, most that may wait.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'closed'} end
local known = redis.call('GET', KEYS[4])
if known then return {'known', known} end
local item = redis.call('HMGET', KEYS[2], 'available', 'price', 'limit', 'opens', 'closes', 'hold')
if not item[1] then return {'refused', 'unknown-item'} end
local quantity, now = tonumber(ARGV[5]), tonumber(ARGV[6])
if now < tonumber(item[4]) then return {'refused', 'too-early'} end
if now >= tonumber(item[5]) then return {'refused', 'ended'} end
local taken = tonumber(redis.call('HGET', KEYS[3], ARGV[3]) or '0')
if quantity < 1 or taken + quantity > tonumber(item[3]) then return {'refused', 'limit-reached'} end
if tonumber(item[1]) < quantity then return {'refused', 'sold-out'} end
if redis.call('XLEN', KEYS[6]) >= tonumber(ARGV[7]) then return {'full'} end
local id = redis.call('LPOP', KEYS[5])
if not id then return {'no-ids'} end
redis.call('HINCRBY', KEYS[2], 'available', -quantity)
redis.call('HINCRBY', KEYS[3], ARGV[3], quantity)
local amount = string.format('%.0f', tonumber(item[2]) * quantity)
local expires = string.format('%.0f', now + tonumber(item[6]) * 1000)
local order = table.concat({id, ARGV[2], ARGV[5], amount, ARGV[6], expires}, '|')
redis.call('SET', KEYS[4], order)
redis.call('SADD', KEYS[7], id)
redis.call('XADD', KEYS[6], '*', 'order', order, 'user', ARGV[3], 'key', ARGV[4])
return {'held', order}
