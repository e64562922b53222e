-- What only SQLite understands, or only PostgreSQL does not.


-- Words of migrations. What a migration has used does not change.

-- fragment: key
TEXT

-- fragment: number
INTEGER

-- fragment: bytes
BLOB

-- fragment: id
INTEGER NOT NULL PRIMARY KEY

-- fragment: id_used_once
@id AUTOINCREMENT

-- fragment: table
STRICT

-- fragment: table_by_key
STRICT, WITHOUT ROWID

-- fragment: ledger
@table_by_key

-- fragment: is_dated
hex(substr(grant_key, 1, 5)) = printf('%010X', timestamp)

-- fragment: place
id


-- Words of statements

-- fragment: for_update

-- fragment: skip_locked

-- fragment: assets_by_context
assets INDEXED BY assets_context

-- fragment: has_part
instr(context, :part) > 0

-- fragment: target_has_part
instr(target, :part) > 0

-- One transaction writes at a time, so there is nothing to lock.
-- name: hold!
SELECT 1;

-- Pages of the list. SQLite does not know how rare a status is, so each statement names its index.

-- fragment: before
grant_key < :before ORDER BY grant_key DESC LIMIT {most}

-- fragment: of_key
cloud = :cloud AND api_key = :api_key

-- fragment: of_key_among_rare
@of_key

-- each page: grants
SELECT @grant_columns FROM grants INDEXED BY @its_index WHERE @its_grants AND @before;


-- Upkeep

-- The inner statement is answered by the index of blob keys alone.
-- fragment: broken_addressable
SELECT @asset_name FROM assets WHERE id IN (
  SELECT id FROM assets WHERE NOT
    (length(blob_key) = 32 AND blob_key GLOB '[0-9a-fp]*' AND substr(blob_key, 2) NOT GLOB '*[^0-9a-f]*')
);

-- name: is_frozen
SELECT count(*) AS frozen FROM sqlite_schema WHERE type = 'trigger' AND name = 'frozen_grants_insert';

-- name: freeze!
CREATE TRIGGER IF NOT EXISTS frozen_{table}_{event} BEFORE {event} ON {table}
BEGIN SELECT RAISE(ABORT, 'The database is frozen: it is a backup, or was moved away from.'); END;

-- name: thaw!
DROP TRIGGER IF EXISTS frozen_{table}_{event};

-- name: list_tables
SELECT name FROM sqlite_schema WHERE type = 'table';

-- name: schema_version
SELECT user_version AS version FROM pragma_user_version;

-- A write that changes nothing, yet reaches the disk: nothing less finds out that a disk is full.
-- name: touch!
PRAGMA user_version = {version};

-- SQLite counts on from the greatest number by itself.
-- name: count_on!
SELECT 1;


-- A copy and the live database beside it. A table without a schema is that of the copy: SQLite looks into `main` first.

-- name: attach_live!
ATTACH :address AS live;

-- name: detach_live!
DETACH live;

-- name: copy_live!
INSERT INTO main.assets SELECT * FROM live.assets WHERE asset_id = :asset_id;

-- name: is_related
SELECT NOT EXISTS (SELECT 1 FROM main.assets)
    OR EXISTS (SELECT 1 FROM main.assets JOIN live.assets USING (asset_id)) AS related;

-- name: is_continued
WITH newest AS (SELECT * FROM main.audit ORDER BY id DESC LIMIT 1)
SELECT NOT EXISTS (SELECT 1 FROM live.audit JOIN newest ON audit.at <= newest.at)
    OR EXISTS (SELECT 1 FROM live.audit JOIN newest USING (grant_key, event, asset_id)) AS continued;

-- name: find_renewed
SELECT @asset_columns FROM main.assets WHERE asset_id = :asset_id;
