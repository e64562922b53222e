-- What the server that started last was set to: commands may run in a shell without its settings. No rows before a start.
-- Servers of the release before still use `server_settings`.
CREATE TABLE noted_settings (
  name  TEXT NOT NULL PRIMARY KEY,  -- lower case, without UPONCE_
  value TEXT NOT NULL
) @table;
