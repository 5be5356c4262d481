-- What no row may say, whatever the code does. Like the floor under the stock, nothing relies on these: they are there for the day on
-- which something is wrong. The seeded bugs that need one gone drop it.
ALTER TABLE orders
    ADD CONSTRAINT orders_quantity_positive CHECK (quantity > 0),
    ADD CONSTRAINT orders_amount_floor CHECK (amount_cents >= 0),
    ADD CONSTRAINT orders_end_after_beginning CHECK (expires_at_us > created_at_us);
ALTER TABLE order_event ADD CONSTRAINT order_event_quantity_positive CHECK (quantity > 0);
ALTER TABLE purchase ADD CONSTRAINT purchase_floor CHECK (quantity >= 0);
ALTER TABLE payment_intent ADD CONSTRAINT payment_intent_amount_floor CHECK (amount_cents >= 0);
ALTER TABLE item ADD CONSTRAINT item_window CHECK (opens_at_us < closes_at_us);
