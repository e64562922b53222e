-- Seconds after pending_at in which the upload can still complete, by the limits of the server that signed it. 0 in the
-- rows of servers that did not store it.
ALTER TABLE relays ADD COLUMN bound @number NOT NULL DEFAULT 0;
