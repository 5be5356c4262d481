-- What the service means to do with a buyer's money, written down before it asks the payment dependency for anything: whoever
-- is killed between two steps leaves a row that somebody finishes.
--
--   capturing -> captured -> paid
--   capturing -> declined
--   capturing -> refunding -> refunded     the order was given back before the capture was known
--                captured  -> refunding    the order was given back before it could be called paid
--
-- Whether an intent is captured or refunded is decided by one update of its row, so that nothing is ever both.
CREATE TABLE payment_intent (
    key          text    PRIMARY KEY,
    order_id     bigint  NOT NULL,
    user_id      text    NOT NULL,
    amount_cents bigint  NOT NULL,
    asked_at_us  bigint  NOT NULL,
    state        text    NOT NULL
        CHECK (state IN ('capturing', 'captured', 'paid', 'declined', 'refunding', 'refunded')),
    -- When somebody else than the request that made it may take it up.
    due_us       bigint  NOT NULL
) WITH (fillfactor = 70);

-- An order is paid under one key at a time: whoever asks again joins the attempt under way. Only a declined one makes room.
CREATE UNIQUE INDEX payment_intent_live ON payment_intent (order_id) WHERE state <> 'declined';
CREATE INDEX payment_intent_of_order ON payment_intent (order_id);

-- What is left to be finished, and nothing else.
CREATE INDEX payment_intent_due ON payment_intent (due_us) WHERE state IN ('capturing', 'captured', 'refunding');
