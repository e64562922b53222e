-- What uploads that sent an Idempotency-Key were answered, for as long as the grant is remembered.

CREATE TABLE replies (
  grant_key BLOB NOT NULL,
  key_hash  BLOB NOT NULL,  -- SHA-256 of the client's key
  sha256    TEXT NOT NULL,  -- of the bytes that were answered; the asset may be an older one that was kept
  committed TEXT NOT NULL,  -- JSON object
  PRIMARY KEY (grant_key, key_hash)
) STRICT, WITHOUT ROWID;

-- Whoever forgets a grant forgets its replies in the same transaction.
CREATE TRIGGER grants_forget_replies AFTER DELETE ON grants
BEGIN
  DELETE FROM replies WHERE grant_key = OLD.grant_key;
END;
