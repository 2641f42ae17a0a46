-- The progress of each scheduled flow. It is written by the owner of the flow's first partition only.
CREATE TABLE usher_schedule (
    flow    TEXT   PRIMARY KEY,
    plan    TEXT   NOT NULL, -- the schedule as text: of another one nothing in the past is due
    settled BIGINT NOT NULL, -- every time up to this one was fired or skipped
    next_at BIGINT,          -- the next time; none if there is none
    firing  BIGINT,          -- the time of the firing that has begun and not ended
    cursor  TEXT             -- the last subject that it has treated
);
