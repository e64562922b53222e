-- The random name that this database and its storage share, see app/owner.py. No row before it has taken a storage.
CREATE TABLE owner (
  one  @number NOT NULL PRIMARY KEY CHECK (one = 1),
  name @key    NOT NULL
) @table;
