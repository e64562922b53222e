-- What the server that started last was set to: commands may run in a shell without its settings. No row before a start.
CREATE TABLE server_settings (
  one           @number NOT NULL PRIMARY KEY CHECK (one = 1),
  skew          @number NOT NULL,  -- seconds
  audit_seconds @number NOT NULL,
  dead_seconds  @number NOT NULL
) @table;
