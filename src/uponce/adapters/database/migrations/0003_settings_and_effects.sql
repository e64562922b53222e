-- What the server that started last was set to: commands may run in a shell without its settings. No rows before a start.
CREATE TABLE server_settings (
  name  TEXT NOT NULL PRIMARY KEY,  -- lower case, without UPONCE_
  value TEXT NOT NULL
) @table;

-- Each kind of work looks for its own effects. Thousands of due notifications would else be read for each look of a relay.
-- `outbox_due` stays for statements about effects of all kinds.
CREATE INDEX outbox_named ON outbox (dead, name, due_at);
