-- The list of one key's grants, and of the few that were revoked or have uses left, found without reading the many
-- others.

CREATE INDEX grants_key_page ON grants (api_key, timestamp);
CREATE INDEX grants_unused ON grants (cloud, timestamp) WHERE revoked_at IS NULL AND uses < max_uses;
CREATE INDEX grants_revoked ON grants (cloud, timestamp) WHERE revoked_at IS NOT NULL;
