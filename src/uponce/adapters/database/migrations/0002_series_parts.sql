-- How many rows of series_parts a series has, so that no request counts them.
ALTER TABLE series ADD COLUMN parts @number NOT NULL DEFAULT 0;
UPDATE series SET parts = (SELECT count(*) FROM series_parts WHERE series_parts.series_id = series.id);
