CREATE TABLE grants_other PARTITION OF grants DEFAULT;

CREATE INDEX grants_page ON grants (cloud, timestamp, grant_key);
CREATE INDEX grants_key_page ON grants (api_key, timestamp, grant_key);
CREATE INDEX grants_unused ON grants (cloud, timestamp, grant_key) WHERE revoked_at IS NULL AND uses < max_uses;
CREATE INDEX grants_revoked ON grants (cloud, timestamp, grant_key) WHERE revoked_at IS NOT NULL;
CREATE INDEX grants_pending ON grants (cloud, timestamp, grant_key) WHERE pending > 0;

-- `id + 0` is an order that the primary key does not give. So no plan for a page by context reads assets without one.
CREATE INDEX assets_context ON assets (cloud, resource_type, (id + 0)) WHERE context != '[]';

-- All rows of a series or relay go with it.
ALTER TABLE series_grants ADD FOREIGN KEY (series_id) REFERENCES series ON DELETE CASCADE;
ALTER TABLE series_parts ADD FOREIGN KEY (series_id) REFERENCES series ON DELETE CASCADE;
ALTER TABLE relay_grants ADD FOREIGN KEY (relay_id) REFERENCES relays ON DELETE CASCADE;

-- Beside a publication of all tables, PostgreSQL refuses to update a table without a primary key.

-- The history of PostgreSQL in which the ledger was last used. See __init__.py.
CREATE TABLE history (name text NOT NULL PRIMARY KEY);

-- What the triggers of a frozen database run.
CREATE FUNCTION uponce_frozen() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'The database is frozen: it was moved away from.'; END $$;

-- How many migrations were applied.
CREATE TABLE schema_version (version bigint NOT NULL PRIMARY KEY);
