-- What a flow remembers of its subjects, each flow by itself: what an event changed is then the same whichever flow comes
-- first. Without fields: the subject was deleted.
CREATE TABLE usher_remembered (
    flow        TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    updated_at  BIGINT NOT NULL,
    occurred_at BIGINT NOT NULL,
    fields      TEXT,
    PRIMARY KEY (flow, key)
);

ALTER TABLE usher_run ADD COLUMN before_event TEXT;    -- what the flow knew before its event, and what that changed
ALTER TABLE usher_run ADD COLUMN expires_at   BIGINT;  -- from then on the run is worth nothing, and nothing of its event is kept

CREATE INDEX usher_run_expired ON usher_run (flow, expires_at) WHERE state = 'dead' AND body IS NOT NULL AND expires_at IS NOT NULL;
