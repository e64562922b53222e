-- Where an effect goes to, so that a backlog of one receiver delays no other one. '-' in the rows of servers that did not
-- know it. Each look walks over the receivers of one kind of work, and then reads the due effects of some of them.
ALTER TABLE outbox ADD COLUMN receiver @key NOT NULL DEFAULT '-';
CREATE INDEX outbox_receivers ON outbox (dead, name, receiver, due_at);
