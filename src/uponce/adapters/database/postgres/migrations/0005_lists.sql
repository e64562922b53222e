-- The list of one key's grants, and of the few that were revoked or have uses left, found without reading the many
-- others. The parts of the ledger that stand already get none of these: making them would keep uploads waiting, and
-- those parts are gone within hours. New parts get all that the whole has.

CREATE INDEX grants_key_page ON ONLY grants (api_key, timestamp, grant_key);
CREATE INDEX grants_unused ON ONLY grants (cloud, timestamp, grant_key) WHERE revoked_at IS NULL AND uses < max_uses;
CREATE INDEX grants_revoked ON ONLY grants (cloud, timestamp, grant_key) WHERE revoked_at IS NOT NULL;

CREATE INDEX grants_other_key_page ON grants_other (api_key, timestamp, grant_key);
CREATE INDEX grants_other_unused ON grants_other (cloud, timestamp, grant_key)
  WHERE revoked_at IS NULL AND uses < max_uses;
CREATE INDEX grants_other_revoked ON grants_other (cloud, timestamp, grant_key) WHERE revoked_at IS NOT NULL;

ALTER INDEX grants_key_page ATTACH PARTITION grants_other_key_page;
ALTER INDEX grants_unused ATTACH PARTITION grants_other_unused;
ALTER INDEX grants_revoked ATTACH PARTITION grants_other_revoked;
