-- A payment was declined for an order whose units were deducted for good: they go back before it counts as declined, and whoever is killed in
-- between leaves a row that is finished like any other.
ALTER TABLE payment_intent DROP CONSTRAINT payment_intent_state_check;
ALTER TABLE payment_intent ADD CONSTRAINT payment_intent_state_check
    CHECK (state IN ('capturing', 'captured', 'paid', 'declined', 'refunding', 'refunded', 'returning'));

DROP INDEX payment_intent_due;
CREATE INDEX payment_intent_due ON payment_intent (due_us)
    WHERE state IN ('capturing', 'captured', 'refunding', 'returning');
