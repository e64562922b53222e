-- Times are Unix seconds. Everything that must be decided together stands in this one file.

CREATE TABLE api_keys (
  api_key         TEXT    NOT NULL PRIMARY KEY,
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

-- The ledger. A grant that was never used or revoked has no row.
CREATE TABLE grants (
  grant_key  BLOB    NOT NULL PRIMARY KEY,
  cloud      TEXT    NOT NULL,
  api_key    TEXT    NOT NULL,
  timestamp  INTEGER NOT NULL,
  max_uses   INTEGER NOT NULL,
  uses       INTEGER NOT NULL CHECK (uses BETWEEN 0 AND max_uses),
  keep_until INTEGER NOT NULL,
  spent_at   INTEGER,
  revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX grants_purge ON grants (keep_until);
CREATE INDEX grants_page ON grants (cloud, timestamp);

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
