-- What the server that started last was set to: commands may run in a shell without its settings. No row before a start.
CREATE TABLE server_settings (
  one           @number NOT NULL PRIMARY KEY CHECK (one = 1),
  skew          @number NOT NULL,  -- seconds
  audit_seconds @number NOT NULL,
  dead_seconds  @number NOT NULL,
  cloud         TEXT    NOT NULL
) @table;

-- Each kind of work looks for its own effects. Thousands of due notifications would else be read for each look of a relay.
-- `outbox_due` stays for statements about effects of all kinds.
CREATE INDEX outbox_named ON outbox (dead, name, due_at);
