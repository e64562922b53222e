-- Series whose bytes every server can read: each recorded part is an object of its own.

ALTER TABLE series ADD COLUMN shared boolean NOT NULL DEFAULT false;

-- In which object the bytes from start up to and not including stop lie. No two parts of a series overlap.
CREATE TABLE series_parts (
  series_id text   COLLATE "C" NOT NULL REFERENCES series ON DELETE CASCADE,
  start     bigint NOT NULL,
  stop      bigint NOT NULL CHECK (stop > start),
  name      text   COLLATE "C" NOT NULL,
  sha256    text   NOT NULL,
  PRIMARY KEY (series_id, start)
);
