-- The number of its signatures. So a series takes no more of them than the limit, and no request counts them.
ALTER TABLE series ADD COLUMN signatures @number NOT NULL DEFAULT 1;
UPDATE series SET signatures = (SELECT count(*) FROM series_grants WHERE series_id = id);
