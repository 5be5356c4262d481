-- One sale: the stock counter, the orders that hold units of it, and what became of them.
--
-- Every identifier in the ledger comes from one sequence, and is drawn after the item's row lock was
-- taken. Sequence order is therefore commit order within an item, and a prefix of the ledger is a state
-- that the stock really went through.
CREATE SEQUENCE ledger_seq AS bigint;

-- The hot row. A low fill factor leaves room for heap-only updates, and there is no index besides the key.
CREATE TABLE item (
    id             bigint  PRIMARY KEY,
    title          text    NOT NULL,
    price_cents    bigint  NOT NULL CHECK (price_cents >= 0),
    stock_initial  bigint  NOT NULL CHECK (stock_initial >= 0),
    available      bigint  NOT NULL,
    per_user_limit integer NOT NULL CHECK (per_user_limit > 0),
    opens_at_us    bigint  NOT NULL,
    closes_at_us   bigint  NOT NULL,
    hold_ms        bigint  NOT NULL CHECK (hold_ms > 0),
    -- The last line of defence: no strategy relies on it, and a bug that needs it gone drops it.
    CONSTRAINT item_available_floor CHECK (available >= 0)
) WITH (fillfactor = 20);

-- An order is its own reserve event. No foreign key: it would add a lock and a lookup to the hot path.
CREATE TABLE orders (
    id              bigint  PRIMARY KEY DEFAULT nextval('ledger_seq'),
    item_id         bigint  NOT NULL,
    user_id         text    NOT NULL,
    idempotency_key text    NOT NULL,
    quantity        integer NOT NULL,
    amount_cents    bigint  NOT NULL,
    state           text    NOT NULL CHECK (state IN ('held', 'paid', 'cancelled', 'expired')),
    created_at_us   bigint  NOT NULL,
    expires_at_us   bigint  NOT NULL,
    CONSTRAINT orders_user_key UNIQUE (user_id, idempotency_key)
);

-- What the sweeper looks for, and nothing else.
CREATE INDEX orders_due ON orders (expires_at_us) WHERE state = 'held';

CREATE TABLE order_event (
    seq      bigint  PRIMARY KEY DEFAULT nextval('ledger_seq'),
    order_id bigint  NOT NULL,
    kind     text    NOT NULL CHECK (kind IN ('pay', 'release', 'refund')),
    at_us    bigint  NOT NULL,
    reason   text,
    quantity integer NOT NULL
);

-- What a user holds or has bought. The check makes the limit atomic, without a read beforehand.
CREATE TABLE purchase (
    item_id      bigint  NOT NULL,
    user_id      text    NOT NULL,
    quantity     integer NOT NULL,
    max_quantity integer NOT NULL,
    PRIMARY KEY (item_id, user_id),
    CONSTRAINT purchase_within_limit CHECK (quantity <= max_quantity)
) WITH (fillfactor = 80);

CREATE VIEW ledger AS
SELECT o.id AS seq, o.created_at_us AS at_us, 'reserve'::text AS kind, o.id AS order_id, o.item_id, o.user_id,
       o.quantity, o.amount_cents, o.idempotency_key, o.state, NULL::text AS reason, o.expires_at_us
  FROM orders o
UNION ALL
SELECT e.seq, e.at_us, e.kind, e.order_id, o.item_id, o.user_id,
       e.quantity, o.amount_cents, o.idempotency_key, NULL::text AS state, e.reason, NULL::bigint AS expires_at_us
  FROM order_event e JOIN orders o ON o.id = e.order_id;
