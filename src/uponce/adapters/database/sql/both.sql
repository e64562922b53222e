-- Statements with one text for SQLite and PostgreSQL. `:name` is a parameter, `@name` a fragment, `:@name` a parameter
-- for each column of a fragment, `{name}` a number or an identifier. A name that ends with `!` returns no rows. A write
-- with rows returns columns that are named like its parameters: when PostgreSQL runs one statement for a whole group,
-- each operation finds its rows by them.
--
-- A fragment may be a table. Its first row names the fragments that the other rows have. `each moved: rows_of` makes one
-- statement for each of these rows: `rows_of_assets`.

-- fragment: key_columns
id, api_key, cloud, secret, previous_secret, previous_until, uses, scope, window_seconds, name, allow_v1, algorithms,
created_at, revoked_at, watermark

-- fragment: grant_columns
grant_key, cloud, api_key, timestamp, max_uses, uses, pending, keep_until, spent_at, revoked_at

-- fragment: asset_columns
cloud, resource_type, type, public_id, asset_id, version, version_id, created_at, blob_key, bytes, md5, sha256, facts,
tags, context, original_filename

-- fragment: audit_columns
at, grant_key, cloud, api_key, event, code, asset_id, public_id, address, request_id, count

-- fragment: series_columns
id, cloud, api_key, upload_id, requested, parameters, algorithm, filename, blob_key, created_at, total, shared,
arrived, spans, signatures, parts

-- fragment: relay_columns
relay_id, cloud, target, bytes, md5, sha256, address, request_id, key_hash, pending_at, misses, bound

-- fragment: relay_grant_columns
relay_id, grant_key, api_key, timestamp, max_uses, keep_until

-- fragment: effect_columns
id, name, receiver, subject, details, due_at, tries, error, created_at, dead

-- fragment: used
revoked_at IS NULL AND pending = 0 AND uses >= max_uses

-- fragment: unused
revoked_at IS NULL AND pending = 0 AND uses < max_uses

-- fragment: pending
revoked_at IS NULL AND pending > 0

-- fragment: revoked
revoked_at IS NOT NULL

-- The pages of the list of grants, and the index that SQLite reads for each. See sqlite.sql and postgres.sql.
-- fragment: page
its_name         | its_index       | its_grants
of_cloud         | grants_page     | cloud = :cloud
of_key           | grants_key_page | @of_key
used_of_cloud    | grants_page     | cloud = :cloud AND @used
used_of_key      | grants_key_page | @of_key AND @used
unused_of_cloud  | grants_unused   | cloud = :cloud AND @unused
unused_of_key    | grants_unused   | @of_key_among_rare AND @unused
pending_of_cloud | grants_pending  | cloud = :cloud AND @pending
pending_of_key   | grants_pending  | @of_key_among_rare AND @pending
revoked_of_cloud | grants_revoked  | cloud = :cloud AND @revoked
revoked_of_key   | grants_revoked  | @of_key_among_rare AND @revoked

-- Grants that an unfinished upload holds stay in the ledger. Not NOT IN: for each grant, PostgreSQL reads a list again
-- that it has no room for in memory.
-- fragment: not_held
pending = 0 AND NOT EXISTS (SELECT 1 FROM series_grants WHERE series_grants.grant_key = grants.grant_key)


-- API keys

-- fragment: keys_with_upstreams
SELECT @key_columns, url, url_secret FROM api_keys LEFT JOIN upstreams USING (cloud)

-- name: find_key
@keys_with_upstreams WHERE api_key = :api_key;

-- name: list_keys
@keys_with_upstreams WHERE cloud = :cloud ORDER BY created_at, id;

-- name: list_all_keys
@keys_with_upstreams ORDER BY created_at, id;

-- name: list_secrets
SELECT cloud, api_key, secret FROM api_keys UNION ALL SELECT cloud, 'upstream', url_secret FROM upstreams;

-- name: find_cloud
SELECT cloud FROM api_keys WHERE cloud = :cloud UNION ALL SELECT cloud FROM upstreams WHERE cloud = :cloud LIMIT 1;

-- name: list_clouds
SELECT DISTINCT cloud FROM api_keys ORDER BY cloud;

-- name: add_key
INSERT INTO api_keys (api_key, cloud, secret, uses, scope, window_seconds, name, allow_v1, algorithms, created_at,
  revoked_at, watermark)
VALUES (:api_key, :cloud, :secret, :uses, :scope, :window_seconds, :name, :allow_v1, :algorithms, :created_at,
  :revoked_at, :watermark)
ON CONFLICT DO NOTHING RETURNING api_key;

-- name: revoke_key!
UPDATE api_keys SET revoked_at = :now WHERE api_key = :api_key AND revoked_at IS NULL;

-- name: rotate_key!
UPDATE api_keys SET previous_secret = secret, previous_until = :until, secret = :secret WHERE api_key = :api_key;

-- name: list_upstreams
SELECT cloud, url, url_secret FROM upstreams ORDER BY cloud;

-- name: find_upstream
SELECT cloud, url, url_secret FROM upstreams WHERE cloud = :cloud;

-- name: put_upstream!
INSERT INTO upstreams (cloud, url, url_secret) VALUES (:cloud, :url, :url_secret)
ON CONFLICT (cloud) DO UPDATE SET url = excluded.url, url_secret = excluded.url_secret;

-- name: drop_upstream!
DELETE FROM upstreams WHERE cloud = :cloud;

-- name: find_watermark
SELECT watermark FROM api_keys WHERE api_key = :api_key AND cloud = :cloud AND revoked_at IS NULL;

-- name: raise_watermark!
UPDATE api_keys SET watermark = :mark WHERE api_key = :api_key AND (watermark IS NULL OR watermark < :mark);

-- name: raise_watermarks!
UPDATE api_keys SET watermark = :mark WHERE watermark IS NULL OR watermark < :mark;

-- The watermark of a fenced key is at least the fence's moment. A key that is new since has none until a purge.
-- name: raise_fenced!
UPDATE api_keys SET watermark = :mark WHERE watermark >= :moment AND watermark < :mark;

-- name: find_fence
SELECT moment, mark FROM fences;

-- A moment beyond the new mark is of a clock that was ahead.
-- name: put_fence!
INSERT INTO fences (one, moment, mark) VALUES (1, :moment, :mark)
ON CONFLICT (one) DO UPDATE SET
  moment = CASE WHEN fences.moment BETWEEN excluded.moment AND excluded.mark
    THEN fences.moment ELSE excluded.moment END,
  mark = CASE WHEN fences.mark > excluded.mark THEN fences.mark ELSE excluded.mark END;


-- The ledger

-- name: find_grant
SELECT @grant_columns FROM grants WHERE grant_key = :grant_key;

-- What the audit has of a grant. The one row is NULL if it has nothing.
-- name: recall_grant
SELECT
  max(cloud) AS cloud,
  max(api_key) AS api_key,
  count(CASE WHEN event IN ('spent', 'deleted') THEN 1 END) AS uses,
  max(CASE WHEN event IN ('spent', 'deleted') THEN at END) AS spent_at,
  max(CASE WHEN event = 'revoked' THEN at END) AS revoked_at
FROM audit WHERE grant_key = :grant_key;

-- The whole of "works once": it takes a use that is left, or changes nothing and returns no row. The lesser `max_uses`
-- counts, so a looser key policy does not revive what was used up under the strict one.
-- fragment: one_use_more
ON CONFLICT (grant_key) DO UPDATE SET
  uses = grants.uses + 1,
  max_uses = CASE WHEN grants.max_uses < excluded.max_uses THEN grants.max_uses ELSE excluded.max_uses END,
  keep_until = CASE WHEN grants.keep_until > excluded.keep_until THEN grants.keep_until ELSE excluded.keep_until END

-- fragment: while_left
WHERE grants.uses < grants.max_uses AND grants.uses < excluded.max_uses AND grants.revoked_at IS NULL
RETURNING grant_key

-- name: spend_grant
INSERT INTO grants (grant_key, cloud, api_key, timestamp, max_uses, uses, keep_until, spent_at)
VALUES (:grant_key, :cloud, :api_key, :timestamp, :max_uses, 1, :keep_until, :now)
@one_use_more, spent_at = excluded.spent_at
@while_left;

-- The use counts as taken, and its time is not known yet.
-- name: take_grant
INSERT INTO grants (grant_key, cloud, api_key, timestamp, max_uses, uses, pending, keep_until)
VALUES (:grant_key, :cloud, :api_key, :timestamp, :max_uses, 1, 1, :keep_until)
@one_use_more, pending = grants.pending + 1
@while_left;

-- name: spend_taken_grant!
UPDATE grants SET pending = pending - 1, spent_at = :now,
  keep_until = CASE WHEN keep_until > :keep_until THEN keep_until ELSE :keep_until END
WHERE grant_key = :grant_key;

-- name: free_grant!
UPDATE grants SET pending = pending - 1, uses = uses - 1,
  keep_until = CASE WHEN keep_until > :keep_until THEN keep_until ELSE :keep_until END
WHERE grant_key = :grant_key;

-- name: drop_unused_grant!
DELETE FROM grants WHERE grant_key = :grant_key AND uses = 0 AND revoked_at IS NULL;

-- Here the row's own `max_uses` counts: a use that a key's strict policy refuses today, its next policy may allow. A
-- pending use may come back, so it does not count.
-- name: revoke_grant
INSERT INTO grants (grant_key, cloud, api_key, timestamp, max_uses, uses, keep_until, revoked_at)
VALUES (:grant_key, :cloud, :api_key, :timestamp, :max_uses, 0, :keep_until, :now)
ON CONFLICT (grant_key) DO UPDATE SET
  keep_until = CASE WHEN grants.keep_until > excluded.keep_until THEN grants.keep_until ELSE excluded.keep_until END,
  revoked_at = excluded.revoked_at
WHERE grants.uses - grants.pending < grants.max_uses AND grants.revoked_at IS NULL
RETURNING grant_key;

-- name: write_audit!
INSERT INTO audit (@audit_columns) VALUES (:@audit_columns);

-- name: count_refusals
SELECT count(*) AS refusals, max(id) AS last FROM audit WHERE grant_key = :grant_key AND event = 'refused';

-- name: add_refusal!
UPDATE audit SET count = count + 1, at = :at, code = :code, address = :address, request_id = :request_id
WHERE id = :last;

-- name: history
SELECT id, at, event, code, asset_id, public_id, address, request_id, count FROM audit
WHERE grant_key = :grant_key AND id < :before ORDER BY id DESC LIMIT :most;

-- A revoked grant answers nothing any more, nor does a grant that was forgotten.
-- name: find_reply
SELECT answer, sha256 FROM replies JOIN grants USING (grant_key)
WHERE grants.grant_key = :grant_key AND key_hash = :key_hash AND revoked_at IS NULL;

-- For the address of a series, which is no signature.
-- name: find_reply_also_revoked
SELECT answer, sha256 FROM replies JOIN grants USING (grant_key)
WHERE grants.grant_key = :grant_key AND key_hash = :key_hash;

-- It replaces the reply of a grant that was forgotten before its reply was.
-- name: keep_reply!
INSERT INTO replies (grant_key, key_hash, sha256, answer, keep_until)
VALUES (:grant_key, :key_hash, :sha256, :answer, :keep_until)
ON CONFLICT (grant_key, key_hash) DO UPDATE SET
  sha256 = excluded.sha256, answer = excluded.answer, keep_until = excluded.keep_until;

-- name: newest_moment
SELECT max(moment) AS moment FROM (
  SELECT max(at) AS moment FROM audit UNION ALL
  SELECT moment FROM fences UNION ALL
  SELECT max(watermark) FROM api_keys WHERE watermark > coalesce((SELECT mark FROM fences), -1)
) AS known;


-- The catalog

-- name: find_asset
SELECT @asset_columns FROM assets
WHERE cloud = :cloud AND resource_type = :resource_type AND type = :type AND public_id = :public_id;

-- name: find_asset_of_blob
SELECT @asset_columns FROM assets WHERE blob_key = :blob_key;

-- A page of assets by their context. It begins at the asset `newest`. The first asset that it may not read any more is
-- the one after `{window}` others. `part` is the text of a pair, or of the beginning of a pair.
-- fragment: with_context
cloud = :cloud AND resource_type = :resource_type AND context != '[]' AND @place <= :newest

-- name: find_end_of_window
SELECT id FROM @assets_by_context WHERE @with_context ORDER BY @place DESC LIMIT 1 OFFSET {window};

-- name: assets_of_context
SELECT id, @asset_columns FROM @assets_by_context WHERE @with_context AND @place > :behind AND @has_part
ORDER BY @place DESC LIMIT {most};

-- Of one cloud: the assets that do not fit into its newest files and bytes, and the assets that are too old.
-- name: surplus_assets
SELECT @asset_columns FROM (
  SELECT id, @asset_columns, count(*) OVER newest AS files, sum(bytes) OVER newest AS total
  FROM assets WHERE cloud = :cloud WINDOW newest AS (ORDER BY id DESC)
) AS counted
WHERE files > :most_files OR total > :most_bytes OR created_at <= :before ORDER BY id LIMIT :most;

-- An overwritten asset keeps what the update leaves out: that is its identity.
-- name: put_asset!
INSERT INTO assets (@asset_columns) VALUES (:@asset_columns)
ON CONFLICT (cloud, resource_type, type, public_id) DO UPDATE SET
  version = excluded.version, version_id = excluded.version_id, blob_key = excluded.blob_key, bytes = excluded.bytes,
  md5 = excluded.md5, sha256 = excluded.sha256, facts = excluded.facts, tags = excluded.tags,
  context = excluded.context, original_filename = excluded.original_filename;

-- name: drop_asset!
DELETE FROM assets WHERE asset_id = :asset_id;

-- name: find_named_blob
SELECT blob_key FROM assets WHERE blob_key = :blob_key UNION ALL SELECT blob_key FROM series WHERE blob_key = :blob_key;

-- name: find_condemned
SELECT blob_key FROM condemned WHERE blob_key = :blob_key;

-- name: condemn!
INSERT INTO condemned (blob_key, at) VALUES (:blob_key, :at) ON CONFLICT DO NOTHING;

-- name: list_digests
SELECT blob_key, bytes, md5, sha256 FROM assets WHERE blob_key >= :first AND blob_key < :behind;

-- name: list_series_blobs
SELECT blob_key FROM series;


-- Series. A series may have thousands of grants, so only what spends them all reads them all.

-- fragment: series_with_first_grant
SELECT @series_columns, grant_key, timestamp, max_uses, keep_until FROM series JOIN series_grants
ON series_id = id AND grant_key = (SELECT grant_key FROM series_grants WHERE series_id = id ORDER BY grant_key LIMIT 1)

-- name: find_series
@series_with_first_grant WHERE id = :series_id;

-- name: find_named_series
@series_with_first_grant WHERE cloud = :cloud AND api_key = :api_key AND upload_id = :upload_id;

-- name: find_series_of_grant
@series_with_first_grant WHERE id IN (SELECT series_id FROM series_grants WHERE grant_key = :grant_key);

-- name: find_series_grant
SELECT grant_key FROM series_grants WHERE series_id = :series_id AND grant_key = :grant_key;

-- name: find_series_grants
SELECT cloud, api_key, grant_key, timestamp, max_uses, keep_until FROM series JOIN series_grants ON series_id = id
WHERE id = :series_id ORDER BY grant_key;

-- name: count_series
SELECT count(*) AS in_all, count(CASE WHEN api_key = :api_key THEN 1 END) AS of_key FROM series;

-- Until the end of the transaction, no other one changes the series.
-- name: hold_series
SELECT id FROM series WHERE id = :series_id @for_update;

-- name: add_series!
INSERT INTO series (@series_columns) VALUES (:@series_columns);

-- `idle`: those of them that are shared, complete and older than `complete_before`.
-- name: count_holders
SELECT count(*) AS holders, count(
  CASE WHEN shared = 1 AND created_at < :complete_before AND spans = '[[0,' || CAST(total AS TEXT) || ']]' THEN 1 END
) AS idle
FROM series_grants JOIN series ON series.id = series_id WHERE grant_key = :grant_key;

-- name: add_series_grant!
INSERT INTO series_grants (series_id, grant_key, timestamp, max_uses, keep_until)
VALUES (:series_id, :grant_key, :timestamp, :max_uses, :keep_until);

-- name: count_signature!
UPDATE series SET signatures = signatures + 1 WHERE id = :series_id;

-- name: add_part!
INSERT INTO series_parts (series_id, start, stop, name, sha256) VALUES (:series_id, :start, :stop, :name, :sha256);

-- name: grow_series!
UPDATE series SET total = :total, arrived = :arrived, spans = :spans, parts = :parts WHERE id = :series_id;

-- name: note_arrival!
UPDATE series SET arrived = arrived + :size WHERE id = :series_id;

-- name: list_parts
SELECT start, stop, name, sha256 FROM series_parts
WHERE series_id = :series_id
  AND start >= coalesce((SELECT max(start) FROM series_parts WHERE series_id = :series_id AND start <= :start), 0)
  AND stop > :start AND start < :stop
ORDER BY start LIMIT :most;

-- name: end_series
DELETE FROM series WHERE id = :series_id RETURNING id AS series_id;

-- name: end_empty_series
DELETE FROM series WHERE id = :series_id AND spans = '[]' RETURNING id AS series_id;

-- "The slowest" has the least rate over its whole life; of equally slow ones it is the oldest. A series that is just
-- being completed is left alone, here and below; it stays for the next time, should that fail. `arrived` alone does not
-- show that: it counts bytes that came twice, or failed their checksum. Not `id IN`: with few rows PostgreSQL would ask
-- again for each row, and skip what has ended before.
-- name: end_slowest_series
DELETE FROM series WHERE id = (
  SELECT id FROM series
  WHERE coalesce(api_key = :api_key, true)
    AND (total IS NULL OR (total > 0 AND spans <> '[[0,' || CAST(total AS TEXT) || ']]'))
    AND arrived < :rate * CASE WHEN :now - created_at > :seconds THEN :now - created_at ELSE :seconds END
  ORDER BY
    arrived * 1.0 / CASE WHEN :now - created_at > :seconds THEN :now - created_at ELSE :seconds END, created_at, id
  LIMIT 1 @skip_locked
) RETURNING blob_key;

-- In the order of `end_slowest_series`.
-- name: list_slowest_complete
@series_with_first_grant
WHERE coalesce(api_key = :of_key, true) AND created_at < CASE WHEN shared = 0 THEN :before ELSE :shared_before END
AND spans = '[[0,' || CAST(total AS TEXT) || ']]'
ORDER BY arrived * 1.0 / (:now - created_at), created_at, id LIMIT :most;

-- The first one, however large it is, and further ones until `rows` signatures and parts go with their series. None is
-- younger than `newest`, the later one of the two moments.
-- name: end_old_series
DELETE FROM series WHERE id IN (
  SELECT id FROM (
    SELECT id, sum(signatures + parts) OVER (ORDER BY created_at, id) - signatures - parts AS rows_before FROM (
      SELECT id, created_at, signatures, parts FROM series
      WHERE created_at < :newest AND (created_at < :before OR (created_at < :empty_before AND arrived = 0))
      ORDER BY created_at LIMIT :most @skip_locked
    ) AS old
  ) AS counted
  WHERE rows_before < :rows
) RETURNING blob_key;

-- name: end_series_of_key!
DELETE FROM series WHERE api_key = :api_key;

-- name: end_all_series!
DELETE FROM series;

-- name: end_fenced_series!
DELETE FROM series WHERE id IN (SELECT series_id FROM series_grants WHERE timestamp <= :mark);


-- Relays

-- name: find_relay
SELECT @relay_columns FROM relays WHERE relay_id = :relay_id;

-- name: find_relay_grants
SELECT cloud, api_key, grant_key, timestamp, max_uses, keep_until FROM relays JOIN relay_grants USING (relay_id)
WHERE relay_id = :relay_id ORDER BY grant_key;

-- name: find_pending_repeat
SELECT relay_id FROM relay_grants JOIN relays USING (relay_id)
WHERE grant_key = :grant_key AND key_hash = :key_hash LIMIT 1;

-- name: add_relay!
INSERT INTO relays (@relay_columns) VALUES (:@relay_columns);

-- name: add_relay_grant!
INSERT INTO relay_grants (@relay_grant_columns) VALUES (:@relay_grant_columns);

-- name: end_relay
DELETE FROM relays WHERE relay_id = :relay_id RETURNING relay_id;

-- name: note_misses!
UPDATE relays SET misses = :misses WHERE relay_id = :relay_id;


-- The outbox

-- name: add_effect!
INSERT INTO outbox (name, receiver, subject, details, due_at, tries, error, created_at, dead)
VALUES (:name, :receiver, :subject, :details, :due_at, 0, '', :now, 0);

-- name: find_first_due
SELECT min(due_at) AS due_at FROM outbox WHERE dead = 0 AND name = :name;

-- A step for each receiver that has effects: `DISTINCT` would read them all.
-- name: find_due_receivers
SELECT receiver FROM (
  WITH RECURSIVE walk (receiver) AS (
    SELECT min(receiver) FROM outbox WHERE dead = 0 AND name = :name AND receiver > :after
    UNION ALL
    SELECT (SELECT min(receiver) FROM outbox WHERE dead = 0 AND name = :name AND outbox.receiver > walk.receiver)
    FROM walk WHERE walk.receiver < :until
  )
  SELECT receiver FROM walk WHERE EXISTS (
    SELECT 1 FROM outbox WHERE dead = 0 AND name = :name AND outbox.receiver = walk.receiver AND due_at <= :now
  ) LIMIT :most
) AS found;

-- name: find_due_effects
SELECT * FROM (
  SELECT @effect_columns FROM outbox AS due
  WHERE name = :name AND receiver = :receiver AND dead = 0 AND due_at <= :now AND id = (
    SELECT min(@place) FROM outbox AS waiting WHERE waiting.subject = due.subject AND waiting.dead = 0
  )
  ORDER BY due_at LIMIT :most @skip_locked
) AS found;

-- The first due effects, each with the effect of its subject that runs before it.
-- name: find_first_effects
SELECT * FROM (
  SELECT id, (
    SELECT max(@place) FROM outbox AS earlier
    WHERE earlier.subject = due.subject AND earlier.dead = 0 AND @place < due.id
  ) AS before
  FROM outbox AS due WHERE name = :name AND receiver = :receiver AND dead = 0 AND due_at <= :now
  ORDER BY due_at LIMIT :most @skip_locked
) AS found;

-- name: hold_effect
SELECT id FROM outbox WHERE id = :id AND dead = 0 @skip_locked;

-- name: delay_effect!
UPDATE outbox SET due_at = :due_at WHERE id = :id;

-- name: claim_effect!
UPDATE outbox SET due_at = :due_at, tries = tries + 1 WHERE id = :id;

-- `claimed` is when the claim ends. An effect with another time was hastened during its run, or claimed again.
-- name: postpone_effect
UPDATE outbox SET due_at = :due_at, error = :error, dead = :dead WHERE id = :id AND due_at = :claimed
RETURNING subject;

-- A separate statement: PostgreSQL shows it the effects that were delayed before the one `id` was done or died.
-- name: hasten_next_effect!
UPDATE outbox SET due_at = :now WHERE due_at > :now AND id = (
  SELECT min(@place) FROM outbox AS later WHERE later.subject = :subject AND later.dead = 0 AND @place > :id
);

-- Here and below `+ 0` keeps the engine from reading all effects that are due later: a subject has few.
-- name: hasten_effects!
UPDATE outbox SET due_at = :now WHERE subject = :subject AND dead = 0 AND due_at + 0 > :now;

-- Of uploads that are pending in the upstream of a cloud, those whose target names `part`.
-- name: hasten_relays!
UPDATE outbox SET due_at = :due_at WHERE dead = 0 AND due_at + 0 > :due_at
AND subject IN (SELECT relay_id FROM relays WHERE cloud = :cloud AND @target_has_part);

-- name: revive_relays!
UPDATE outbox SET due_at = :now, dead = 0, tries = 0
WHERE subject IN (SELECT relay_id FROM relays WHERE cloud = :cloud);

-- name: count_waiting
SELECT (SELECT count(*) FROM relays) AS pending, (SELECT count(*) FROM outbox WHERE dead = 0) AS live,
  (SELECT count(*) FROM outbox WHERE dead = 1) AS dead;

-- name: finish_effect
DELETE FROM outbox WHERE id = :id RETURNING subject;

-- name: finish_effects!
DELETE FROM outbox WHERE subject = :subject;

-- name: find_effect
SELECT @effect_columns FROM outbox WHERE id = :id;

-- name: list_effects
SELECT @effect_columns FROM outbox ORDER BY dead DESC, due_at, id LIMIT :most;

-- name: retry_effect
UPDATE outbox SET due_at = :now, dead = 0, tries = 0 WHERE id = :id RETURNING id;

-- name: retry_dead_effects
UPDATE outbox SET due_at = :now, dead = 0, tries = 0 WHERE id IN (
  SELECT id FROM outbox WHERE dead = 1 AND id > :after ORDER BY id LIMIT :most @skip_locked
) RETURNING id;

-- name: drop_dead_effects
DELETE FROM outbox WHERE id IN (
  SELECT id FROM outbox WHERE dead = 1 AND name = :name AND id > :after AND id <= :last ORDER BY id LIMIT :most
  @skip_locked
) RETURNING id;

-- It changes nothing but when they are due: a clock that is behind sees all effects far ahead.
-- name: hasten_far_effects
UPDATE outbox SET due_at = :now WHERE id IN (
  SELECT id FROM outbox WHERE dead = 0 AND due_at > :far ORDER BY due_at LIMIT :most @skip_locked
) RETURNING id;

-- Those of a relay hold a pending signature.
-- name: oldest_dead_effect
SELECT (
  SELECT due_at FROM outbox
  WHERE dead = 1 AND NOT EXISTS (SELECT 1 FROM relays WHERE relay_id = outbox.subject)
  ORDER BY due_at LIMIT 1
) AS oldest;

-- name: drop_old_effects
DELETE FROM outbox WHERE id IN (
  SELECT id FROM outbox
  WHERE dead = 1 AND due_at < :before AND NOT EXISTS (SELECT 1 FROM relays WHERE relay_id = outbox.subject)
  ORDER BY due_at LIMIT :most @skip_locked
) RETURNING id;


-- Upkeep

-- name: past_grants
SELECT grant_key, api_key, timestamp FROM grants WHERE keep_until < :before AND @not_held
ORDER BY keep_until LIMIT :most;

-- name: drop_grant!
DELETE FROM grants WHERE grant_key = :grant_key;

-- name: drop_replies
DELETE FROM replies WHERE (grant_key, key_hash) IN (
  SELECT grant_key, key_hash FROM replies WHERE keep_until < :before LIMIT :most
) RETURNING grant_key;

-- name: oldest_audit
SELECT min(at) AS oldest FROM audit;

-- name: drop_audit
DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < :before ORDER BY at LIMIT :most) RETURNING id;

-- Each rule is one statement, answered from one snapshot: beside running servers no half of a commit is seen. After a
-- restore, the whole ledger may break a rule: so a list has a limit, and the count is another statement.
-- fragment: rules
its_name        | its_broken
addressable     | @broken_addressable
not_condemned   | @broken_not_condemned
within_uses     | @broken_within_uses
dated           | @broken_dated
pending         | @broken_pending
audited         | @broken_audited
purged          | @broken_purged
after_watermark | @broken_after_watermark

-- each rules: broken
SELECT subject FROM (@its_broken) AS broken LIMIT :most;

-- each rules: count_broken
SELECT count(*) AS subjects FROM (@its_broken) AS broken;

-- fragment: asset_name
cloud || '/' || resource_type || '/' || type || '/' || public_id AS subject

-- fragment: broken_not_condemned
SELECT @asset_name FROM assets WHERE blob_key IN (SELECT blob_key FROM condemned);

-- fragment: broken_within_uses
SELECT grant_key AS subject FROM grants WHERE uses NOT BETWEEN 0 AND max_uses;

-- fragment: broken_dated
SELECT grant_key AS subject FROM grants WHERE (uses > pending) != (spent_at IS NOT NULL);

-- fragment: broken_pending
SELECT grant_key AS subject FROM grants WHERE pending > 0 AND pending != (
  SELECT count(*) FROM relay_grants WHERE relay_grants.grant_key = grants.grant_key
)
UNION ALL
SELECT grant_key FROM relay_grants WHERE NOT EXISTS (
  SELECT 1 FROM grants WHERE grants.grant_key = relay_grants.grant_key AND pending > 0
);

-- The audit has each use of a grant with a timestamp after `audited`, from its oldest row on: a server with a shorter
-- setting may have purged the rows before. A grant may be spent `ahead` seconds before its timestamp. Of several uses,
-- only the time of the last one is known.
-- fragment: broken_audited
SELECT grant_key AS subject FROM grants
WHERE uses > 0 AND timestamp > :audited
  AND CASE WHEN uses - pending = 1 THEN spent_at ELSE timestamp - :ahead END
    >= coalesce((SELECT min(at) FROM audit), 0)
  AND uses - pending != (
    SELECT count(*) FROM audit WHERE audit.grant_key = grants.grant_key AND event IN ('spent', 'deleted')
  );

-- fragment: broken_purged
SELECT grant_key AS subject FROM grants WHERE keep_until < :now - 3600 AND @not_held;

-- fragment: broken_after_watermark
SELECT grant_key AS subject FROM grants JOIN api_keys USING (api_key)
WHERE timestamp <= watermark AND @not_held;

-- The owner of the storage

-- name: find_owner
SELECT name FROM owner;

-- name: add_owner!
INSERT INTO owner (one, name) VALUES (1, :name) ON CONFLICT (one) DO NOTHING;

-- name: drop_owner!
DELETE FROM owner;

-- The settings of the server

-- name: find_settings
SELECT name, value FROM noted_settings;

-- name: drop_settings!
DELETE FROM noted_settings;

-- name: put_setting!
INSERT INTO noted_settings (name, value) VALUES (:name, :value)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;


-- Moving. Rows are read in the order of their keys and added behind those that are there.
-- name: count_rows
SELECT count(*) AS rows FROM {table};

-- fragment: moved
its_name     | its_key             | its_key_downwards             | its_columns
assets       | id                  | id DESC                       | id, @asset_columns
condemned    | blob_key            | blob_key DESC                 | blob_key, at
audit        | id                  | id DESC                       | id, @audit_columns
grants       | grant_key           | grant_key DESC                | @grant_columns
replies      | grant_key, key_hash | grant_key DESC, key_hash DESC | grant_key, key_hash, sha256, answer, keep_until
relays       | relay_id            | relay_id DESC                 | @relay_columns
relay_grants | relay_id, grant_key | relay_id DESC, grant_key DESC | @relay_grant_columns
outbox       | id                  | id DESC                       | @effect_columns
upstreams    | cloud               | cloud DESC                    | cloud, url, url_secret
fences       | one                 | one DESC                      | one, moment, mark
api_keys     | id                  | id DESC                       | @key_columns

-- each moved: rows_of
SELECT @its_columns FROM @its_name WHERE (@its_key) > (:@its_key) ORDER BY @its_key LIMIT :most;

-- each moved: last_of
SELECT @its_columns FROM @its_name ORDER BY @its_key_downwards LIMIT 1;

-- each moved: add_to!
INSERT INTO @its_name (@its_columns) VALUES (:@its_columns);
