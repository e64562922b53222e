-- A grant's key begins with the timestamp that was signed (`dated` of core/signature.py), so that rows which come and
-- go together lie together, and the ledger is cut by the key itself. What was keyed before gets such keys too; the audit
-- of a grant that was forgotten by now keeps the old one. Servers of the release before cannot spend on this schema.

SET LOCAL statement_timeout = 0;

-- Before anything is read: what a server spends from here on would be forgotten.
LOCK TABLE grants, series_grants, replies IN ACCESS EXCLUSIVE MODE;

CREATE TABLE old_grants AS
SELECT decode(lpad(to_hex(timestamp), 10, '0'), 'hex') || substring(grant_key FOR 27) AS dated_key, grants.*
FROM grants;

CREATE INDEX ON old_grants (grant_key);
ANALYZE old_grants;

UPDATE audit SET grant_key = dated_key FROM old_grants AS old WHERE audit.grant_key = old.grant_key;
UPDATE replies SET grant_key = dated_key FROM old_grants AS old WHERE replies.grant_key = old.grant_key;
UPDATE series_grants
SET grant_key = decode(lpad(to_hex(timestamp), 10, '0'), 'hex') || substring(grant_key FOR 27);

DROP TABLE grants;

-- The ledger. A grant that was never used or revoked has no row. See partitions.py.
CREATE TABLE grants (
  grant_key  bytea  NOT NULL PRIMARY KEY,
  cloud      text   COLLATE "C" NOT NULL,
  api_key    text   COLLATE "C" NOT NULL,
  timestamp  bigint NOT NULL,
  max_uses   bigint NOT NULL,
  uses       bigint NOT NULL CHECK (uses BETWEEN 0 AND max_uses),
  keep_until bigint NOT NULL,
  spent_at   bigint,
  revoked_at bigint,
  CHECK (substring(grant_key FOR 5) = decode(lpad(to_hex(timestamp), 10, '0'), 'hex'))
) PARTITION BY RANGE (grant_key);

CREATE TABLE grants_other PARTITION OF grants DEFAULT;

CREATE INDEX grants_purge ON grants (keep_until);
CREATE INDEX grants_page ON grants (cloud, timestamp, grant_key);
CREATE INDEX grants_key_page ON grants (api_key, timestamp, grant_key);
CREATE INDEX grants_unused ON grants (cloud, timestamp, grant_key) WHERE revoked_at IS NULL AND uses < max_uses;
CREATE INDEX grants_revoked ON grants (cloud, timestamp, grant_key) WHERE revoked_at IS NOT NULL;

INSERT INTO grants
SELECT dated_key, cloud, api_key, timestamp, max_uses, uses, keep_until, spent_at, revoked_at FROM old_grants;

DROP TABLE old_grants;
DROP INDEX series_grants_time;
