-- The newest open runs of a flow, and their number, for operators. The first column is an expression of its own, so that only
-- statements that name it use the index. Neither column ever changes: a run is written to the index when it is admitted and
-- when it leaves the table, and an update of it stays one.
CREATE INDEX usher_open_run_received ON usher_open_run ((flow || '/'), received_at);

-- An operator's words about a pause and about an action.
ALTER TABLE usher_pause ADD COLUMN why TEXT;
ALTER TABLE usher_action ADD COLUMN why TEXT;
