-- Beside a publication of all tables, PostgreSQL refuses to update a table without a primary key.
ALTER TABLE history ADD PRIMARY KEY (name);
ALTER TABLE schema_version ADD PRIMARY KEY (version);
