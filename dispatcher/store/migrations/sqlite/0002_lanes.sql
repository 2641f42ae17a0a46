-- Lanes that live in the store: parked runs, what counts against a run, whom its step asks.
ALTER TABLE usher_run ADD COLUMN destination  TEXT;                      -- the connector that the present step asks
ALTER TABLE usher_run ADD COLUMN pass         INTEGER NOT NULL DEFAULT 0; -- how often it was run again after it had ended well
ALTER TABLE usher_run ADD COLUMN spent        INTEGER NOT NULL DEFAULT 0; -- attempts that count against the flow's bound
ALTER TABLE usher_run ADD COLUMN unanswered   INTEGER NOT NULL DEFAULT 0; -- attempts in a row that ended with the process
ALTER TABLE usher_run ADD COLUMN tried_since  INTEGER;                    -- the first attempt of the present step
ALTER TABLE usher_run ADD COLUMN asked_at     INTEGER;                    -- when the kept request was sent first
ALTER TABLE usher_run ADD COLUMN failed_at    INTEGER;
ALTER TABLE usher_run ADD COLUMN cancel_asked INTEGER NOT NULL DEFAULT 0; -- 1: to end after the attempt that is under way

DROP INDEX usher_run_due;
CREATE INDEX usher_run_due  ON usher_run (flow, partition, due_at) WHERE state IN ('waiting', 'parked');
CREATE INDEX usher_run_news ON usher_run (flow, key)               WHERE state = 'waiting';
CREATE INDEX usher_run_dead ON usher_run (flow, ended_at)          WHERE state = 'dead';

CREATE TABLE usher_effect_of_pass (
    flow      TEXT    NOT NULL,
    event     TEXT    NOT NULL,
    pass      INTEGER NOT NULL,
    step      INTEGER NOT NULL,
    step_name TEXT    NOT NULL,
    connector TEXT    NOT NULL,
    id        TEXT    NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (flow, event, pass, step)
);
INSERT INTO usher_effect_of_pass SELECT flow, event, 0, step, step_name, connector, id, at FROM usher_effect;
DROP TABLE usher_effect;
ALTER TABLE usher_effect_of_pass RENAME TO usher_effect;

-- Flows that an operator has paused.
CREATE TABLE usher_pause (
    flow TEXT   PRIMARY KEY,
    who  TEXT   NOT NULL,
    at   INTEGER NOT NULL
);

-- What operators have ordered, and what came of it. The id is the order's own: given twice, it is carried out once.
CREATE TABLE usher_action (
    id    TEXT   PRIMARY KEY,
    at    INTEGER NOT NULL,
    who   TEXT   NOT NULL,
    what  TEXT   NOT NULL,
    flow  TEXT   NOT NULL,
    event TEXT,
    came  TEXT   NOT NULL
);
CREATE INDEX usher_action_event ON usher_action (flow, event);

-- Runs of events from before this time are forgotten: such an event is never taken for new.
CREATE TABLE usher_pruned (
    flow       TEXT   PRIMARY KEY,
    older_than INTEGER NOT NULL
);
