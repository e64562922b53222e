-- The greatest fence, see docs/adr/0007: keys that come back after it are behind it too. No row before a fence.
CREATE TABLE fences (
  one    @number NOT NULL PRIMARY KEY CHECK (one = 1),
  moment @number NOT NULL,  -- of the last fence
  mark   @number NOT NULL   -- newest timestamp that is refused since: the moment and the greatest skew
) @table;
