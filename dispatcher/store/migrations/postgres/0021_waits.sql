-- Flows that go on under another name. Under the former one nothing is owned any more, unless it is given to another flow.
CREATE TABLE usher_renamed (
    was   TEXT   PRIMARY KEY,
    flow  TEXT   NOT NULL,
    at    BIGINT NOT NULL,
    freed BIGINT NOT NULL DEFAULT 0 -- 1: another flow has the former name now
);

-- Runs that may begin, without those that wait or are parked: a million of these had to be read to find the few others. A wait and
-- its end write the index of waits in any case, so this costs no update more.
UPDATE usher_open_run SET wakes_at = NULL WHERE wakes_at IS NOT NULL AND state NOT IN ('waiting', 'parked');
DROP INDEX usher_open_run_position;
CREATE INDEX usher_open_run_position ON usher_open_run (partition, flow, position, event_ref) WHERE wakes_at IS NULL;
