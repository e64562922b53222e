-- Times are Unix seconds. Columns have the same names on every engine, and the same kinds of values: texts, numbers,
-- bytes. A text that is compared or ordered is a `@key`. Each engine's file of this name follows in the same step.

CREATE TABLE api_keys (
  id              @id,
  api_key         @key    NOT NULL UNIQUE,
  cloud           @key    NOT NULL,
  name            TEXT    NOT NULL,
  secret          @bytes  NOT NULL,  -- encrypted, bound to this cloud and api_key
  previous_secret @bytes,  -- rotated out; counts until previous_until
  previous_until  @number,
  uses            TEXT    NOT NULL,
  scope           TEXT    NOT NULL,
  window_seconds  @number NOT NULL,
  allow_v1        @number NOT NULL,
  algorithms      TEXT    NOT NULL,  -- JSON array
  created_at      @number NOT NULL,
  revoked_at      @number,
  watermark       @number  -- newest timestamp whose grants may have been purged; never goes down
) @table;

CREATE INDEX api_keys_cloud ON api_keys (cloud);

-- The accounts to which uploads of a cloud are passed on.
CREATE TABLE upstreams (
  cloud      @key    NOT NULL PRIMARY KEY,
  url        TEXT   NOT NULL,  -- without the secret
  url_secret @bytes NOT NULL  -- encrypted, bound to this cloud
) @table;

-- The ledger. A grant that was never used or revoked has no row. Its key begins with the timestamp that was signed, so
-- rows that come and go together are together. PostgreSQL cuts the ledger by the key, see postgres/schema.py.
CREATE TABLE grants (
  grant_key  @bytes  NOT NULL PRIMARY KEY,
  cloud      @key    NOT NULL,
  api_key    @key    NOT NULL,
  timestamp  @number NOT NULL,
  max_uses   @number NOT NULL,
  uses       @number NOT NULL CHECK (uses BETWEEN 0 AND max_uses),
  pending    @number NOT NULL DEFAULT 0 CHECK (pending BETWEEN 0 AND uses),  -- uses whose outcome is not known
  keep_until @number NOT NULL,
  spent_at   @number,
  revoked_at @number,
  CHECK (@is_dated)
) @ledger;

CREATE INDEX grants_purge ON grants (keep_until);

CREATE TABLE assets (
  id                @id,
  cloud             @key    NOT NULL,
  resource_type     @key    NOT NULL,
  type              @key    NOT NULL,
  public_id         @key    NOT NULL,
  asset_id          @key    NOT NULL UNIQUE,
  version           @number NOT NULL,
  version_id        TEXT    NOT NULL,
  created_at        @number NOT NULL,
  blob_key          @key    NOT NULL UNIQUE,
  bytes             @number NOT NULL,
  md5               TEXT    NOT NULL,
  sha256            TEXT    NOT NULL,
  facts             TEXT    NOT NULL,  -- JSON object
  tags              TEXT    NOT NULL,  -- JSON array
  context           TEXT    NOT NULL,  -- JSON array of pairs
  original_filename TEXT,
  UNIQUE (cloud, resource_type, type, public_id)
) @table;

-- Blobs that the sweeper may delete. Rows stay: a server that was paused for long may still come to commit one.
CREATE TABLE condemned (
  blob_key @key    NOT NULL PRIMARY KEY,
  at       @number NOT NULL
) @table_by_key;

CREATE TABLE audit (
  id         @id,
  at         @number NOT NULL,
  grant_key  @bytes  NOT NULL,
  cloud      TEXT    NOT NULL,
  api_key    TEXT    NOT NULL,
  event      TEXT    NOT NULL,
  code       TEXT    NOT NULL,
  asset_id   TEXT    NOT NULL,
  public_id  TEXT    NOT NULL,
  address    TEXT    NOT NULL,
  request_id TEXT    NOT NULL,
  count      @number NOT NULL DEFAULT 1  -- how many refusals the row stands for; `at` is the last one
) @table;

CREATE INDEX audit_grant ON audit (grant_key);
CREATE INDEX audit_age ON audit (at);
-- The refusals of a grant, of which the audit has few rows. A use has no entry: a grant may have a million uses.
CREATE INDEX audit_refusals ON audit (grant_key) WHERE event = 'refused';

-- What uploads that sent an Idempotency-Key were answered, for as long as the grant is remembered.
CREATE TABLE replies (
  grant_key  @bytes  NOT NULL,
  key_hash   @bytes  NOT NULL,  -- SHA-256 of the client's key
  sha256     TEXT    NOT NULL,  -- of the bytes that were answered; the asset may be an older one that was kept
  answer     TEXT    NOT NULL,  -- JSON object
  keep_until @number NOT NULL,
  PRIMARY KEY (grant_key, key_hash)
) @table_by_key;

CREATE INDEX replies_purge ON replies (keep_until);

-- Uploads that arrive in several requests. All rows of one go when it is complete, given up or swept.
CREATE TABLE series (
  id         @key    NOT NULL PRIMARY KEY,
  cloud      @key    NOT NULL,
  api_key    @key    NOT NULL,
  upload_id  @key,  -- the client's name for it
  requested  TEXT,  -- resource type; NULL is auto
  parameters TEXT    NOT NULL,  -- JSON array of pairs, those of the request that began it
  algorithm  TEXT    NOT NULL,
  filename   TEXT,
  blob_key   @key    NOT NULL UNIQUE,
  created_at @number NOT NULL,
  total      @number,  -- NULL until a chunk declared it
  shared     @number NOT NULL,  -- 1 when every server can read its bytes: each recorded part is an object
  arrived    @number NOT NULL,  -- bytes that arrived, recorded or not; repeated bytes count again
  spans      TEXT    NOT NULL,  -- JSON array of [start, stop]: which bytes are there, durably; merged, in order
  signatures @number NOT NULL,  -- how many it has, so that no request counts them
  parts      @number NOT NULL,  -- how many rows of series_parts it has, for the same reason
  UNIQUE (cloud, api_key, upload_id)
) @table;

CREATE INDEX series_age ON series (created_at);

-- The signatures seen in a series. None is spent before it is complete.
CREATE TABLE series_grants (
  series_id  @key    NOT NULL,
  grant_key  @bytes  NOT NULL,
  timestamp  @number NOT NULL,
  max_uses   @number NOT NULL,
  keep_until @number NOT NULL,
  PRIMARY KEY (series_id, grant_key)
) @table_by_key;

CREATE INDEX series_grants_key ON series_grants (grant_key);

-- In which object the bytes from start up to and not including stop are. No two parts of a series overlap.
CREATE TABLE series_parts (
  series_id @key    NOT NULL,
  start     @number NOT NULL,
  stop      @number NOT NULL CHECK (stop > start),
  name      @key    NOT NULL,
  sha256    TEXT    NOT NULL,
  PRIMARY KEY (series_id, start)
) @table_by_key;

-- Uploads that were passed on to an upstream, until their outcome is known. All rows of one go when it is.
CREATE TABLE relays (
  relay_id   @key    NOT NULL PRIMARY KEY,
  cloud      @key    NOT NULL,
  target     TEXT    NOT NULL,  -- JSON object: where in the upstream
  bytes      @number NOT NULL,
  md5        TEXT    NOT NULL,
  sha256     TEXT    NOT NULL,
  address    TEXT    NOT NULL,
  request_id TEXT    NOT NULL,
  key_hash   @bytes,  -- SHA-256 of the client's Idempotency-Key
  pending_at @number NOT NULL,
  misses     @number NOT NULL,  -- look-ups after the bound that found nothing
  bound      @number NOT NULL  -- seconds after pending_at in which it can complete, by the server that signed it
) @table;

-- The grants of which such an upload has taken one use each.
CREATE TABLE relay_grants (
  relay_id   @key    NOT NULL,
  grant_key  @bytes  NOT NULL,
  api_key    @key    NOT NULL,
  timestamp  @number NOT NULL,
  max_uses   @number NOT NULL,
  keep_until @number NOT NULL,
  PRIMARY KEY (relay_id, grant_key)
) @table_by_key;

CREATE INDEX relay_grants_key ON relay_grants (grant_key);

-- Work that a transaction left for later. No number comes twice: a worker may still name one that is done.
CREATE TABLE outbox (
  id         @id_used_once,
  name       TEXT    NOT NULL,  -- which work
  receiver   @key    NOT NULL,  -- where it goes to, so that a backlog of one receiver delays no other one
  subject    @key    NOT NULL,  -- on what
  details    TEXT    NOT NULL,  -- what the work needs to know
  due_at     @number NOT NULL,
  tries      @number NOT NULL,
  error      TEXT    NOT NULL,  -- of the last try
  created_at @number NOT NULL,
  dead       @number NOT NULL  -- 1 when it waits for an operator
) @table;

-- Each kind of work looks for its own effects by the second index. Thousands of due notifications would else be read for
-- each look of a relay. The effects of one subject run in the order of the third. Its dead ones are apart. Each look
-- walks over the receivers of one kind of work by the last, and then reads the due effects of some of them.
CREATE INDEX outbox_due ON outbox (dead, due_at);
CREATE INDEX outbox_named ON outbox (dead, name, due_at);
CREATE INDEX outbox_order ON outbox (subject, dead, @place);
CREATE INDEX outbox_receivers ON outbox (dead, name, receiver, due_at);

-- The random name that this database and its storage share, see app/owner.py. No row before it has taken a storage.
CREATE TABLE owner (
  one  @number NOT NULL PRIMARY KEY CHECK (one = 1),
  name @key    NOT NULL
) @table;

-- What the server that started last was set to: commands may run in a shell without its settings. No rows before a start.
CREATE TABLE noted_settings (
  name  TEXT NOT NULL PRIMARY KEY,  -- lower case, without UPONCE_
  value TEXT NOT NULL
) @table;

-- The greatest fence, see docs/adr/0007: keys that come back after it are behind it too. No row before a fence.
CREATE TABLE fences (
  one    @number NOT NULL PRIMARY KEY CHECK (one = 1),
  moment @number NOT NULL,  -- of the last fence
  mark   @number NOT NULL   -- newest timestamp that is refused since: the moment and the greatest skew
) @table;
