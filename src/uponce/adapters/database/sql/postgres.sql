-- What only PostgreSQL understands, or only SQLite does not.

-- fragment: for_update
FOR UPDATE

-- fragment: skip_locked
FOR UPDATE SKIP LOCKED

-- fragment: assets_by_context
assets

-- As the index has it.
-- fragment: place
(id + 0)

-- fragment: has_part
strpos(context, :part) > 0

-- fragment: target_has_part
strpos(target, :part) > 0

-- name: begin!
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;

-- name: begin_read!
BEGIN READ ONLY;

-- name: roll_back!
ROLLBACK;

-- name: commit
COMMIT;

-- name: wait_long!
SET LOCAL statement_timeout = 0;

-- PostgreSQL 17 and newer
-- name: wait_longer!
SET LOCAL transaction_timeout = 0;

-- name: end_transactions!
SET transaction_timeout = '{seconds}s';

-- name: durability
SELECT name, setting FROM pg_settings WHERE name IN
  ('fsync', 'full_page_writes', 'synchronous_commit', 'server_encoding', 'server_version_num');

-- name: moment
SELECT coalesce(CAST(:now AS float8), CAST(extract(epoch FROM clock_timestamp()) AS float8)) AS now;


-- Locks, see steps.py

-- name: share_rules!
SELECT pg_advisory_xact_lock_shared(hashtextextended('uponce rules', 0));

-- name: own_rules!
SELECT pg_advisory_xact_lock(hashtextextended('uponce rules', 0));

-- name: hold!
SELECT pg_advisory_xact_lock(n) FROM unnest(CAST(:numbers AS bigint[])) AS n;


-- Pages of the list. One plan serves all values: planning each page over all parts takes longer than reading it. So a
-- plan must not depend on how many rows an owner has: the order is one that the primary key does not give, and only one
-- of the indexes gives it. Nor may it depend on how many rows a part had when it was planned: to sort a few looks
-- cheap, so sorting is off. The order of the keys is the same, and shows which parts are past.

-- name: unsorted!
SET LOCAL enable_sort = off;

-- fragment: before
(timestamp, grant_key) < (:timestamp, :before) AND grant_key < :before
ORDER BY timestamp DESC, grant_key DESC LIMIT {most}

-- By the index of the rare ones.
-- fragment: key_among_rare
cloud = :cloud AND api_key || '' = :api_key

-- name: grants_of_cloud
SELECT @grant_columns FROM grants WHERE cloud = :cloud AND @before;

-- name: used_grants_of_cloud
SELECT @grant_columns FROM grants WHERE cloud = :cloud AND @used AND @before;

-- name: unused_grants_of_cloud
SELECT @grant_columns FROM grants WHERE cloud = :cloud AND @unused AND @before;

-- name: pending_grants_of_cloud
SELECT @grant_columns FROM grants WHERE cloud = :cloud AND @pending AND @before;

-- name: revoked_grants_of_cloud
SELECT @grant_columns FROM grants WHERE cloud = :cloud AND @revoked AND @before;

-- name: grants_of_key
SELECT @grant_columns FROM grants WHERE api_key = :api_key AND @before;

-- name: used_grants_of_key
SELECT @grant_columns FROM grants WHERE api_key = :api_key AND @used AND @before;

-- name: unused_grants_of_key
SELECT @grant_columns FROM grants WHERE @key_among_rare AND @unused AND @before;

-- name: pending_grants_of_key
SELECT @grant_columns FROM grants WHERE @key_among_rare AND @pending AND @before;

-- name: revoked_grants_of_key
SELECT @grant_columns FROM grants WHERE @key_among_rare AND @revoked AND @before;


-- Upkeep

-- name: drop_grants
WITH old AS (
  SELECT grant_key FROM grants WHERE keep_until < :before AND @not_held ORDER BY keep_until LIMIT :most
)
DELETE FROM grants USING old WHERE grants.grant_key = old.grant_key RETURNING grants.api_key, grants.timestamp;

-- name: broken_addressable
SELECT @asset_name FROM assets WHERE length(blob_key) != 32 OR blob_key !~ '^[0-9a-fp][0-9a-f]*$';

-- name: is_frozen
SELECT count(*) AS frozen FROM pg_trigger
WHERE tgrelid = CAST('grants' AS regclass) AND tgname = 'frozen_insert';

-- name: freeze!
CREATE OR REPLACE TRIGGER frozen_{event} BEFORE {event} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION uponce_frozen();

-- name: thaw!
DROP TRIGGER IF EXISTS frozen_{event} ON {table};

-- name: lock_schema!
SELECT pg_advisory_xact_lock(hashtextextended('uponce schema', 0));

-- Not to_regclass: it answers from a cache that waiting for a lock does not refresh.
-- name: find_schema
SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'schema_version';

-- name: forget_version!
DELETE FROM schema_version WHERE version < {version};

-- name: record_version!
INSERT INTO schema_version SELECT {version} WHERE NOT EXISTS (SELECT FROM schema_version);

-- name: schema_version
SELECT max(version) AS version FROM schema_version;

-- A write that changes nothing, yet reaches the disk.
-- name: touch!
UPDATE schema_version SET version = {version};

-- The numbers to come are greater than those that were added.
-- name: count_on!
SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table};

-- name: checksum_failures
SELECT 'page checksums failed ' || checksum_failures || ' times, last ' || checksum_last_failure AS message
FROM pg_stat_database WHERE datname = current_database() AND checksum_failures > 0;

-- Not of a partitioned table: it has no rows itself, and older parts may lack an index.
-- name: invalid_indexes
SELECT 'index ' || CAST(indexrelid AS regclass) || ' is not valid' AS message
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE NOT indisvalid AND relkind = 'i';

-- name: find_amcheck
SELECT extname FROM pg_extension WHERE extname = 'amcheck';

-- name: list_indexes
SELECT CAST(CAST(index.indexrelid AS regclass) AS text) AS name
FROM pg_index AS index JOIN pg_class ON pg_class.oid = index.indexrelid
JOIN pg_class AS owner ON owner.oid = index.indrelid
WHERE owner.relnamespace = CAST(current_schema() AS regnamespace) AND pg_class.relkind = 'i';

-- name: check_index!
SELECT bt_index_check(CAST(:name AS regclass), true);


-- Parts of the ledger, see postgres/schema.py. `@within` is of the whole, and only the part of that time answers: its name
-- is gone when another server drops it before the statement runs.

-- fragment: within
grant_key >= :from_key AND grant_key < :to_key

-- name: list_grant_parts
SELECT CAST(CAST(inhrelid AS regclass) AS text) AS name FROM pg_inherits WHERE inhparent = CAST('grants' AS regclass);

-- name: keeps_grants
SELECT 1 AS kept FROM grants WHERE @within AND keep_until >= :now
UNION ALL SELECT 1 FROM series_grants WHERE @within
UNION ALL SELECT 1 FROM relay_grants WHERE @within LIMIT 1;

-- name: count_grants_within
SELECT count(*) AS rows FROM grants WHERE @within;

-- name: find_other_within
SELECT grant_key FROM grants_other WHERE @within LIMIT 1;

-- name: wait_briefly!
SET LOCAL lock_timeout = 200;

-- name: lock_grants!
LOCK TABLE ONLY grants IN ACCESS EXCLUSIVE MODE;

-- name: make_grant_part!
CREATE TABLE grants_{start} PARTITION OF grants
FOR VALUES FROM (decode(lpad(to_hex({start}::bigint), 10, '0'), 'hex'))
TO (decode(lpad(to_hex({stop}::bigint), 10, '0'), 'hex'));

-- Uploads wait for it: an index finds the newest timestamp of each key.
-- name: raise_watermarks_over_part!
UPDATE api_keys SET watermark = greatest(
  watermark, (SELECT max(timestamp) FROM grants_{start} AS part WHERE part.api_key = api_keys.api_key)
);

-- name: drop_grant_part!
DROP TABLE grants_{start};


-- Which history of PostgreSQL this is, see postgres/__init__.py

-- name: seen_history
SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8)
  AS name;

-- name: recorded_history
SELECT name FROM history;

-- name: forget_history!
DELETE FROM history;

-- name: record_history!
INSERT INTO history (name) VALUES (:name);
