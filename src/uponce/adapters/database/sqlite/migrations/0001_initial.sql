-- Times are Unix seconds. Everything that must be decided together is in this one file. Columns have the same names on
-- every engine, and the same kinds of values: texts, numbers, bytes.

CREATE TABLE api_keys (
  id              INTEGER NOT NULL PRIMARY KEY,
  api_key         TEXT    NOT NULL UNIQUE,
  cloud           TEXT    NOT NULL,
  name            TEXT    NOT NULL,
  secret          BLOB    NOT NULL,  -- encrypted, bound to this cloud and api_key
  previous_secret BLOB,              -- rotated out; counts until previous_until
  previous_until  INTEGER,
  uses            TEXT    NOT NULL,
  scope           TEXT    NOT NULL,
  window_seconds  INTEGER NOT NULL,
  allow_v1        INTEGER NOT NULL,
  algorithms      TEXT    NOT NULL,  -- JSON array
  created_at      INTEGER NOT NULL,
  revoked_at      INTEGER,
  watermark       INTEGER            -- newest timestamp whose grants may have been purged; never goes down
) STRICT;

CREATE INDEX api_keys_cloud ON api_keys (cloud);

-- The accounts to which uploads of a cloud are passed on.
CREATE TABLE upstreams (
  cloud      TEXT NOT NULL PRIMARY KEY,
  url        TEXT NOT NULL,  -- without the secret
  url_secret BLOB NOT NULL   -- encrypted, bound to this cloud
) STRICT;

-- The ledger. A grant that was never used or revoked has no row. Its key begins with the timestamp that was signed, so
-- rows that come and go together are together.
CREATE TABLE grants (
  grant_key  BLOB    NOT NULL PRIMARY KEY,
  cloud      TEXT    NOT NULL,
  api_key    TEXT    NOT NULL,
  timestamp  INTEGER NOT NULL,
  max_uses   INTEGER NOT NULL,
  uses       INTEGER NOT NULL CHECK (uses BETWEEN 0 AND max_uses),
  pending    INTEGER NOT NULL DEFAULT 0 CHECK (pending BETWEEN 0 AND uses),  -- uses whose outcome is not known
  keep_until INTEGER NOT NULL,
  spent_at   INTEGER,
  revoked_at INTEGER,
  CHECK (hex(substr(grant_key, 1, 5)) = printf('%010X', timestamp))
) STRICT, WITHOUT ROWID;

-- Each ends with the key, in whose order pages of the list are.
CREATE INDEX grants_purge ON grants (keep_until);
CREATE INDEX grants_page ON grants (cloud);
CREATE INDEX grants_key_page ON grants (api_key);
CREATE INDEX grants_unused ON grants (cloud) WHERE revoked_at IS NULL AND uses < max_uses;
CREATE INDEX grants_revoked ON grants (cloud) WHERE revoked_at IS NOT NULL;
CREATE INDEX grants_pending ON grants (cloud) WHERE pending > 0;

CREATE TABLE assets (
  id                INTEGER NOT NULL PRIMARY KEY,
  cloud             TEXT    NOT NULL,
  resource_type     TEXT    NOT NULL,
  type              TEXT    NOT NULL,
  public_id         TEXT    NOT NULL,
  asset_id          TEXT    NOT NULL UNIQUE,
  version           INTEGER NOT NULL,
  version_id        TEXT    NOT NULL,
  created_at        INTEGER NOT NULL,
  blob_key          TEXT    NOT NULL UNIQUE,
  bytes             INTEGER NOT NULL,
  md5               TEXT    NOT NULL,
  sha256            TEXT    NOT NULL,
  facts             TEXT    NOT NULL,  -- JSON object
  tags              TEXT    NOT NULL,  -- JSON array
  context           TEXT    NOT NULL,  -- JSON array of pairs
  original_filename TEXT,
  UNIQUE (cloud, resource_type, type, public_id)
) STRICT;

-- It ends with the id, in whose order pages are, and has the assets with a context alone.
CREATE INDEX assets_context ON assets (cloud, resource_type) WHERE context != '[]';

-- Blobs that the sweeper may delete. Rows stay: a server that was paused for long may still come to commit one.
CREATE TABLE condemned (
  blob_key TEXT    NOT NULL PRIMARY KEY,
  at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
  id         INTEGER NOT NULL PRIMARY KEY,
  at         INTEGER NOT NULL,
  grant_key  BLOB    NOT NULL,
  cloud      TEXT    NOT NULL,
  api_key    TEXT    NOT NULL,
  event      TEXT    NOT NULL,
  code       TEXT    NOT NULL,
  asset_id   TEXT    NOT NULL,
  public_id  TEXT    NOT NULL,
  address    TEXT    NOT NULL,
  request_id TEXT    NOT NULL,
  count      INTEGER NOT NULL DEFAULT 1  -- how many refusals the row stands for; `at` is the last one
) STRICT;

CREATE INDEX audit_grant ON audit (grant_key);
CREATE INDEX audit_age ON audit (at);

-- What uploads that sent an Idempotency-Key were answered, for as long as the grant is remembered.
CREATE TABLE replies (
  grant_key  BLOB    NOT NULL,
  key_hash   BLOB    NOT NULL,  -- SHA-256 of the client's key
  sha256     TEXT    NOT NULL,  -- of the bytes that were answered; the asset may be an older one that was kept
  answer     TEXT    NOT NULL,  -- JSON object
  keep_until INTEGER NOT NULL,
  PRIMARY KEY (grant_key, key_hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX replies_purge ON replies (keep_until);

-- Uploads that arrive in several requests. All rows of one go when it is complete, given up or swept.
CREATE TABLE series (
  id         TEXT    NOT NULL PRIMARY KEY,
  cloud      TEXT    NOT NULL,
  api_key    TEXT    NOT NULL,
  upload_id  TEXT,               -- the client's name for it
  requested  TEXT,               -- resource type; NULL is auto
  parameters TEXT    NOT NULL,   -- JSON array of pairs, those of the request that began it
  algorithm  TEXT    NOT NULL,
  filename   TEXT,
  blob_key   TEXT    NOT NULL UNIQUE,
  created_at INTEGER NOT NULL,
  total      INTEGER,            -- NULL until a chunk declared it
  shared     INTEGER NOT NULL,   -- 1 when every server can read its bytes: each recorded part is an object
  arrived    INTEGER NOT NULL,   -- bytes that arrived, recorded or not; repeated bytes count again
  spans      TEXT    NOT NULL,   -- JSON array of [start, stop]: which bytes are there, durably; merged, in order
  UNIQUE (cloud, api_key, upload_id)
) STRICT;

CREATE INDEX series_age ON series (created_at);

-- The signatures seen in a series. None is spent before it is complete.
CREATE TABLE series_grants (
  series_id  TEXT    NOT NULL,
  grant_key  BLOB    NOT NULL,
  timestamp  INTEGER NOT NULL,
  max_uses   INTEGER NOT NULL,
  keep_until INTEGER NOT NULL,
  PRIMARY KEY (series_id, grant_key)
) STRICT, WITHOUT ROWID;

CREATE INDEX series_grants_key ON series_grants (grant_key);

-- In which object the bytes from start up to and not including stop are. No two parts of a series overlap.
CREATE TABLE series_parts (
  series_id TEXT    NOT NULL,
  start     INTEGER NOT NULL,
  stop      INTEGER NOT NULL CHECK (stop > start),
  name      TEXT    NOT NULL,
  sha256    TEXT    NOT NULL,
  PRIMARY KEY (series_id, start)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER series_end AFTER DELETE ON series
BEGIN
  DELETE FROM series_grants WHERE series_id = OLD.id;
  DELETE FROM series_parts WHERE series_id = OLD.id;
END;

-- A series with its grants: a JSON array of [key in hex, timestamp, max_uses, keep_until].
CREATE VIEW whole_series AS
SELECT series.*, (
  SELECT json_group_array(json_array(lower(hex(grant_key)), timestamp, max_uses, keep_until))
  FROM (SELECT * FROM series_grants WHERE series_id = series.id ORDER BY grant_key)
) AS grants
FROM series;

-- Uploads that were passed on to an upstream, until their outcome is known. All rows of one go when it is.
CREATE TABLE relays (
  relay_id   TEXT    NOT NULL PRIMARY KEY,
  cloud      TEXT    NOT NULL,
  target     TEXT    NOT NULL,  -- JSON object: where in the upstream
  bytes      INTEGER NOT NULL,
  md5        TEXT    NOT NULL,
  sha256     TEXT    NOT NULL,
  address    TEXT    NOT NULL,
  request_id TEXT    NOT NULL,
  key_hash   BLOB,              -- SHA-256 of the client's Idempotency-Key
  pending_at INTEGER NOT NULL,
  misses     INTEGER NOT NULL   -- look-ups after the bound that found nothing
) STRICT;

-- The grants of which such an upload has taken one use each.
CREATE TABLE relay_grants (
  relay_id   TEXT    NOT NULL,
  grant_key  BLOB    NOT NULL,
  api_key    TEXT    NOT NULL,
  timestamp  INTEGER NOT NULL,
  max_uses   INTEGER NOT NULL,
  keep_until INTEGER NOT NULL,
  PRIMARY KEY (relay_id, grant_key)
) STRICT, WITHOUT ROWID;

CREATE INDEX relay_grants_key ON relay_grants (grant_key);

CREATE TRIGGER relay_end AFTER DELETE ON relays
BEGIN
  DELETE FROM relay_grants WHERE relay_id = OLD.relay_id;
END;

-- A relay with its grants: a JSON array of [key in hex, api_key, timestamp, max_uses, keep_until].
CREATE VIEW whole_relays AS
SELECT relays.*, (
  SELECT json_group_array(json_array(lower(hex(grant_key)), api_key, timestamp, max_uses, keep_until))
  FROM (SELECT * FROM relay_grants WHERE relay_id = relays.relay_id ORDER BY grant_key)
) AS grants
FROM relays;

-- Work that a transaction left for later. No number comes twice: a worker may still name one that is done.
CREATE TABLE outbox (
  id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
  name       TEXT    NOT NULL,  -- which work
  subject    TEXT    NOT NULL,  -- on what
  details    TEXT    NOT NULL,  -- what the work needs to know
  due_at     INTEGER NOT NULL,
  tries      INTEGER NOT NULL,
  error      TEXT    NOT NULL,  -- of the last try
  created_at INTEGER NOT NULL,
  dead       INTEGER NOT NULL   -- 1 when it waits for an operator
) STRICT;

CREATE INDEX outbox_due ON outbox (dead, due_at);
CREATE INDEX outbox_subject ON outbox (subject);
