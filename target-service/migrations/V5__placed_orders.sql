-- Orders that set nothing aside before they are paid: the ledger says that they were placed, and when they are paid, that
-- their units were reserved and paid in one.
ALTER TABLE orders ADD COLUMN placed boolean NOT NULL DEFAULT false;
ALTER TABLE orders DROP CONSTRAINT orders_state_check;
ALTER TABLE orders ADD CONSTRAINT orders_state_check
    CHECK (state IN ('placed', 'held', 'paid', 'cancelled', 'expired'));
ALTER TABLE order_event DROP CONSTRAINT order_event_kind_check;
ALTER TABLE order_event ADD CONSTRAINT order_event_kind_check
    CHECK (kind IN ('reserve', 'pay', 'release', 'refund'));

CREATE OR REPLACE VIEW ledger AS
SELECT o.id AS seq, o.created_at_us AS at_us, CASE WHEN o.placed THEN 'place' ELSE 'reserve' END AS kind,
       o.id AS order_id, o.item_id, o.user_id, o.quantity, o.amount_cents, o.idempotency_key, o.state,
       NULL::text AS reason, o.expires_at_us
  FROM orders o
UNION ALL
SELECT e.seq, e.at_us, e.kind, e.order_id, o.item_id, o.user_id,
       e.quantity, o.amount_cents, o.idempotency_key, NULL::text AS state, e.reason, NULL::bigint AS expires_at_us
  FROM order_event e JOIN orders o ON o.id = e.order_id;
