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
  arrived    INTEGER NOT NULL DEFAULT 0,  -- bytes that arrived, recorded or not; repeated bytes count again
  UNIQUE (cloud, api_key, upload_id)
) STRICT;

CREATE INDEX series_age ON series (created_at);

-- Which bytes are there, durably: merged, from start up to and not including stop.
CREATE TABLE series_spans (
  series_id TEXT    NOT NULL,
  start     INTEGER NOT NULL,
  stop      INTEGER NOT NULL CHECK (stop > start),
  PRIMARY KEY (series_id, start)
) STRICT, WITHOUT ROWID;

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
