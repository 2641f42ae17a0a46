-- Lanes that live in the store: parked runs, what counts against a run, whom its step asks.
ALTER TABLE usher_run
    ADD COLUMN destination  TEXT,                      -- the connector that the present step asks
    ADD COLUMN pass         BIGINT NOT NULL DEFAULT 0, -- how often it was run again after it had ended well
    ADD COLUMN spent        BIGINT NOT NULL DEFAULT 0, -- attempts that count against the flow's bound
    ADD COLUMN unanswered   BIGINT NOT NULL DEFAULT 0, -- attempts in a row that ended with the process
    ADD COLUMN tried_since  BIGINT,                    -- the first attempt of the present step
    ADD COLUMN asked_at     BIGINT,                    -- when the kept request was sent first
    ADD COLUMN failed_at    BIGINT,
    ADD COLUMN cancel_asked BIGINT NOT NULL DEFAULT 0; -- 1: to end after the attempt that is under way

DROP INDEX usher_run_due;
CREATE INDEX usher_run_due  ON usher_run (flow, partition, due_at) WHERE state IN ('waiting', 'parked');
CREATE INDEX usher_run_news ON usher_run (flow, key)               WHERE state = 'waiting';
CREATE INDEX usher_run_dead ON usher_run (flow, ended_at)          WHERE state = 'dead';

ALTER TABLE usher_effect ADD COLUMN pass BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usher_effect DROP CONSTRAINT usher_effect_pkey;
ALTER TABLE usher_effect ADD PRIMARY KEY (flow, event, pass, step);

-- Flows that an operator has paused.
CREATE TABLE usher_pause (
    flow TEXT   PRIMARY KEY,
    who  TEXT   NOT NULL,
    at   BIGINT NOT NULL
);

-- What operators have ordered, and what came of it. The id is the order's own: given twice, it is carried out once.
CREATE TABLE usher_action (
    id    TEXT   PRIMARY KEY,
    at    BIGINT NOT NULL,
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
    older_than BIGINT NOT NULL
);
