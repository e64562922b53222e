-- What uploads that sent an Idempotency-Key were answered, for as long as the grant is remembered.

CREATE TABLE replies (
  grant_key  bytea  NOT NULL,
  key_hash   bytea  NOT NULL,  -- SHA-256 of the client's key
  sha256     text   NOT NULL,  -- of the bytes that were answered; the asset may be an older one that was kept
  committed  json   NOT NULL,
  keep_until bigint NOT NULL,
  PRIMARY KEY (grant_key, key_hash)
);

CREATE INDEX replies_purge ON replies (keep_until);
