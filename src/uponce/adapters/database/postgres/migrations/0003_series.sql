-- Uploads that arrive in several requests. All rows of one go when it is complete, given up or swept.
CREATE TABLE series (
  id         text   COLLATE "C" NOT NULL PRIMARY KEY,
  cloud      text   COLLATE "C" NOT NULL,
  api_key    text   COLLATE "C" NOT NULL,
  upload_id  text   COLLATE "C",  -- the client's name for it
  requested  text,                -- resource type; NULL is auto
  parameters json   NOT NULL,     -- array of pairs, those of the request that began it
  algorithm  text   NOT NULL,
  filename   text,
  blob_key   text   COLLATE "C" NOT NULL UNIQUE,
  created_at bigint NOT NULL,
  total      bigint,              -- NULL until a chunk declared it
  arrived    bigint NOT NULL DEFAULT 0,  -- bytes that arrived, recorded or not; repeated bytes count again
  spans      int8multirange NOT NULL DEFAULT '{}',  -- which bytes are there, durably
  UNIQUE (cloud, api_key, upload_id)
);

CREATE INDEX series_age ON series (created_at);

-- The signatures seen in a series. None is spent before it is complete.
CREATE TABLE series_grants (
  series_id  text   COLLATE "C" NOT NULL REFERENCES series ON DELETE CASCADE,
  grant_key  bytea  NOT NULL,
  timestamp  bigint NOT NULL,
  max_uses   bigint NOT NULL,
  keep_until bigint NOT NULL,
  PRIMARY KEY (series_id, grant_key)
);

CREATE INDEX series_grants_key ON series_grants (grant_key);
CREATE INDEX series_grants_time ON series_grants (timestamp);
