-- What the work of an effect needs to know.
ALTER TABLE outbox ADD COLUMN details text NOT NULL DEFAULT '';
