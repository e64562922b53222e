-- Each ends with the key, in whose order pages of the list are.
CREATE INDEX grants_page ON grants (cloud);
CREATE INDEX grants_key_page ON grants (api_key);
CREATE INDEX grants_unused ON grants (cloud) WHERE revoked_at IS NULL AND uses < max_uses;
CREATE INDEX grants_revoked ON grants (cloud) WHERE revoked_at IS NOT NULL;
CREATE INDEX grants_pending ON grants (cloud) WHERE pending > 0;

-- It ends with the id, in whose order pages are, and has the assets with a context alone.
CREATE INDEX assets_context ON assets (cloud, resource_type) WHERE context != '[]';

-- All rows of a series or relay go with it.
CREATE TRIGGER series_end AFTER DELETE ON series
BEGIN
  DELETE FROM series_grants WHERE series_id = OLD.id;
  DELETE FROM series_parts WHERE series_id = OLD.id;
END;

CREATE TRIGGER relay_end AFTER DELETE ON relays
BEGIN
  DELETE FROM relay_grants WHERE relay_id = OLD.relay_id;
END;
