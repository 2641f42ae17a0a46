-- Runs are forgotten by when their events were received.
CREATE INDEX usher_run_received ON usher_run (flow, received_at) WHERE ended_at IS NOT NULL;
DROP INDEX usher_run_ended;
