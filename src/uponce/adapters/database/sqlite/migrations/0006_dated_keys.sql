-- A grant's key begins with the timestamp that was signed, so that rows which come and go together lie together.
-- What was keyed before gets such keys too; `dated_key` is `dated` of core/signature.py. The audit of a grant that was
-- forgotten by now keeps the old one.

CREATE TABLE dated_grants (
  grant_key  BLOB    NOT NULL PRIMARY KEY,
  cloud      TEXT    NOT NULL,
  api_key    TEXT    NOT NULL,
  timestamp  INTEGER NOT NULL,
  max_uses   INTEGER NOT NULL,
  uses       INTEGER NOT NULL CHECK (uses BETWEEN 0 AND max_uses),
  keep_until INTEGER NOT NULL,
  spent_at   INTEGER,
  revoked_at INTEGER,
  CHECK (hex(substr(grant_key, 1, 5)) = printf('%010X', timestamp))  -- refuses older releases that run beside
) STRICT, WITHOUT ROWID;

INSERT INTO dated_grants
SELECT dated_key(timestamp, grant_key), cloud, api_key, timestamp, max_uses, uses, keep_until, spent_at, revoked_at
FROM grants;

UPDATE audit SET grant_key = dated_key(grants.timestamp, grants.grant_key)
FROM grants WHERE audit.grant_key = grants.grant_key;

UPDATE replies SET grant_key = dated_key(grants.timestamp, grants.grant_key)
FROM grants WHERE replies.grant_key = grants.grant_key;

UPDATE series_grants SET grant_key = dated_key(timestamp, grant_key);

DROP TABLE grants;

ALTER TABLE dated_grants RENAME TO grants;

-- Each ends with the key, in whose order pages of the list are.
CREATE INDEX grants_purge ON grants (keep_until);
CREATE INDEX grants_page ON grants (cloud);
CREATE INDEX grants_key_page ON grants (api_key);
CREATE INDEX grants_unused ON grants (cloud) WHERE revoked_at IS NULL AND uses < max_uses;
CREATE INDEX grants_revoked ON grants (cloud) WHERE revoked_at IS NOT NULL;

CREATE TRIGGER grants_forget_replies AFTER DELETE ON grants
BEGIN
  DELETE FROM replies WHERE grant_key = OLD.grant_key;
END;
