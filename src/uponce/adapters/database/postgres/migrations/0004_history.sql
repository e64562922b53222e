-- The history of PostgreSQL in which the ledger was last used, see history.py.

CREATE TABLE history (name text NOT NULL);
