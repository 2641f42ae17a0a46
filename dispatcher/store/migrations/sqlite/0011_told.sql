-- How far the store was told what the log says of people, ahead of the frontier, and the version of the flow that told it.
ALTER TABLE usher_ownership ADD COLUMN told INTEGER;
ALTER TABLE usher_ownership ADD COLUMN told_version TEXT;

-- An index that begins with the flow fits every statement of the flow. Planned while the table is empty, a look for one event
-- may take it, and read all rows of the flow from then on. As an expression, only those who name it use it.
DROP INDEX usher_ended_run_received;
DROP INDEX usher_event_received;
CREATE INDEX usher_ended_run_received ON usher_ended_run ((flow || ''), received_at);
CREATE INDEX usher_event_received     ON usher_event ((flow || ''), received_at);
