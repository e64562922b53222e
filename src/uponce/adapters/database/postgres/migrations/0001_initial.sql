-- Times are Unix seconds. Texts that are compared or ordered go by their bytes (COLLATE "C").

CREATE TABLE api_keys (
  id              bigint  GENERATED ALWAYS AS IDENTITY,  -- which was first, within a second
  api_key         text    COLLATE "C" NOT NULL PRIMARY KEY,
  cloud           text    COLLATE "C" NOT NULL,
  name            text    NOT NULL,
  secret          bytea   NOT NULL,  -- encrypted, bound to this cloud and api_key
  previous_secret bytea,             -- rotated out; counts until previous_until
  previous_until  bigint,
  uses            text    NOT NULL,
  scope           text    NOT NULL,
  window_seconds  bigint  NOT NULL,
  allow_v1        boolean NOT NULL,
  algorithms      json    NOT NULL,
  created_at      bigint  NOT NULL,
  revoked_at      bigint,
  watermark       bigint             -- newest timestamp whose grants may have been purged; never goes down
);

CREATE INDEX api_keys_cloud ON api_keys (cloud);

-- The ledger. A grant that was never used or revoked has no row. What was signed holds the timestamp, so one
-- grant_key has one timestamp, and the pair is as unique as the key alone. See partitions.py.
CREATE TABLE grants (
  grant_key  bytea  NOT NULL,
  cloud      text   COLLATE "C" NOT NULL,
  api_key    text   COLLATE "C" NOT NULL,
  timestamp  bigint NOT NULL,
  max_uses   bigint NOT NULL,
  uses       bigint NOT NULL CHECK (uses BETWEEN 0 AND max_uses),
  keep_until bigint NOT NULL,
  spent_at   bigint,
  revoked_at bigint,
  PRIMARY KEY (grant_key, timestamp)
) PARTITION BY RANGE (timestamp);

CREATE TABLE grants_other PARTITION OF grants DEFAULT;

CREATE INDEX grants_purge ON grants (keep_until);
CREATE INDEX grants_page ON grants (cloud, timestamp, grant_key);

CREATE TABLE assets (
  id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  cloud             text   COLLATE "C" NOT NULL,
  resource_type     text   COLLATE "C" NOT NULL,
  type              text   COLLATE "C" NOT NULL,
  public_id         text   COLLATE "C" NOT NULL,
  asset_id          text   COLLATE "C" NOT NULL UNIQUE,
  version           bigint NOT NULL,
  version_id        text   NOT NULL,
  created_at        bigint NOT NULL,
  blob_key          text   COLLATE "C" NOT NULL UNIQUE,
  bytes             bigint NOT NULL,
  md5               text   NOT NULL,
  sha256            text   NOT NULL,
  facts             json   NOT NULL,
  tags              json   NOT NULL,
  context           json   NOT NULL,  -- array of pairs
  original_filename text,
  UNIQUE (cloud, resource_type, type, public_id)
);

-- Blobs that the sweeper may delete. Rows stay: a server that was paused for long may still come to commit one.
CREATE TABLE condemned (
  blob_key text   COLLATE "C" NOT NULL PRIMARY KEY,
  at       bigint NOT NULL
);

CREATE TABLE audit (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         bigint NOT NULL,
  grant_key  bytea  NOT NULL,
  cloud      text   NOT NULL,
  api_key    text   NOT NULL,
  event      text   NOT NULL,
  code       text   NOT NULL,
  asset_id   text   NOT NULL,
  public_id  text   NOT NULL,
  address    text   NOT NULL,
  request_id text   NOT NULL,
  count      bigint NOT NULL DEFAULT 1  -- how many refusals the row stands for; `at` is the last one
);

CREATE INDEX audit_grant ON audit (grant_key);
CREATE INDEX audit_age ON audit (at);
