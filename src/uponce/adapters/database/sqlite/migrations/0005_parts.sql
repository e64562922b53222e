-- Series whose bytes every server can read: each recorded part is an object of its own.

ALTER TABLE series ADD COLUMN shared INTEGER NOT NULL DEFAULT 0;

-- In which object the bytes from start up to and not including stop lie. No two parts of a series overlap.
CREATE TABLE series_parts (
  series_id TEXT    NOT NULL,
  start     INTEGER NOT NULL,
  stop      INTEGER NOT NULL CHECK (stop > start),
  name      TEXT    NOT NULL,
  sha256    TEXT    NOT NULL,
  PRIMARY KEY (series_id, start)
) STRICT, WITHOUT ROWID;
