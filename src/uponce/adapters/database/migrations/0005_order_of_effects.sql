-- The effects of one subject run in this order. Its dead ones are apart, however many there are.
CREATE INDEX outbox_order ON outbox (subject, dead, @place);
