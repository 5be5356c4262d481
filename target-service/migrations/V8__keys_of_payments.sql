-- The key under which a buyer asked to pay, if he named one: asked again under it, he is told what came of it, also that his payment was
-- declined. Another key is another try.
ALTER TABLE payment_intent ADD COLUMN asked_key text;
