-- The refusals of a grant, of which the audit has few rows. A use has no entry: a grant may have a million uses.
CREATE INDEX audit_refusals ON audit (grant_key) WHERE event = 'refused';
