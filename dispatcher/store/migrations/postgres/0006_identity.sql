-- Source and instance are part of every identity: each is one text, source/instance/id. What stands here already was told
-- apart by ids alone; what its sender and instance were stands beside it.

ALTER TABLE usher_run
    ADD COLUMN event_ref  TEXT,
    ADD COLUMN subject    TEXT,   -- whose lane it is in
    ADD COLUMN digest     TEXT,   -- of its event's body; none of what earlier versions have admitted
    ADD COLUMN letter     BIGINT NOT NULL DEFAULT 0, -- 1: its dead letter is published; 2: and is to be erased
    ADD COLUMN changed_at BIGINT; -- when due_at and claimed_until were written, by the clock they count from
UPDATE usher_run SET
    letter    = CASE WHEN state = 'dead' THEN 1 ELSE 0 END,
    event_ref = source || '/' || instance || '/' || event,
    subject   = CASE WHEN key LIKE 'user\_%' THEN 'clerk' ELSE source END || '/' || instance || '/' || key;
ALTER TABLE usher_run ALTER COLUMN event_ref SET NOT NULL, ALTER COLUMN subject SET NOT NULL;

DROP INDEX usher_run_lane;
DROP INDEX usher_run_news;
ALTER TABLE usher_effect ADD COLUMN event_ref TEXT;
UPDATE usher_effect e SET event_ref = COALESCE(
    (SELECT event_ref FROM usher_run r WHERE r.flow = e.flow AND r.event = e.event), 'clerk/default/' || e.event);
ALTER TABLE usher_action RENAME COLUMN event TO event_ref;
UPDATE usher_action a SET event_ref = COALESCE(
    (SELECT event_ref FROM usher_run r WHERE r.flow = a.flow AND r.event = a.event_ref), 'clerk/default/' || a.event_ref)
WHERE event_ref IS NOT NULL;

ALTER TABLE usher_run DROP CONSTRAINT usher_run_pkey;
ALTER TABLE usher_run ADD PRIMARY KEY (flow, event_ref);
CREATE INDEX usher_run_lane  ON usher_run (flow, subject, position) WHERE ended_at IS NULL;
CREATE INDEX usher_run_news  ON usher_run (flow, subject)           WHERE state = 'waiting';
CREATE INDEX usher_run_event ON usher_run (event);
CREATE INDEX usher_run_letter ON usher_run (flow, event_ref) WHERE letter = 2;

ALTER TABLE usher_effect ALTER COLUMN event_ref SET NOT NULL;
ALTER TABLE usher_effect DROP CONSTRAINT usher_effect_pkey;
ALTER TABLE usher_effect DROP COLUMN event;
ALTER TABLE usher_effect ADD PRIMARY KEY (flow, event_ref, pass, step);

-- Until now only Clerk's events said anything of subjects. Which instance a row came from is not known where the sender has
-- more than one, and a mistake would let one instance decide over another's users: a row becomes that of the one instance
-- that its runs name, else the default one's.
ALTER TABLE usher_subject RENAME COLUMN key TO subject;
UPDATE usher_subject s SET subject = 'clerk/' || COALESCE(
    (SELECT min(r.instance) FROM usher_run r WHERE r.key = s.subject AND r.source = 'clerk' HAVING min(r.instance) = max(r.instance)),
    'default') || '/' || s.subject;
ALTER TABLE usher_remembered RENAME COLUMN key TO subject;
UPDATE usher_remembered s SET subject = 'clerk/' || COALESCE(
    (SELECT min(r.instance) FROM usher_run r WHERE r.key = s.subject AND r.source = 'clerk' HAVING min(r.instance) = max(r.instance)),
    'default') || '/' || s.subject;

-- Who may not be written to, by instance; '*' stands for every one, which is what a row meant until now.
ALTER TABLE usher_reach ADD COLUMN instance TEXT NOT NULL DEFAULT '*';
ALTER TABLE usher_reach ALTER COLUMN instance DROP DEFAULT;
ALTER TABLE usher_reach DROP CONSTRAINT usher_reach_pkey;
ALTER TABLE usher_reach ADD PRIMARY KEY (address, instance, scope);

-- Events that a flow has admitted and that started no run: each has its effects once.
CREATE TABLE usher_event (
    flow        TEXT   NOT NULL,
    event_ref   TEXT   NOT NULL,
    digest      TEXT   NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (flow, event_ref)
);
CREATE INDEX usher_event_received ON usher_event (flow, received_at);

-- Records that no flow can take, kept by whichever flow comes first.
CREATE TABLE usher_refused (
    partition  BIGINT NOT NULL,
    position   BIGINT NOT NULL, -- its offset
    at         BIGINT NOT NULL,
    reason     TEXT   NOT NULL,
    error      TEXT   NOT NULL,
    event      TEXT   NOT NULL, -- its id, as far as there is one
    record_key TEXT   NOT NULL,
    body       BYTEA  NOT NULL,
    PRIMARY KEY (partition, position)
);

-- How new the newest webhook is that a flow has seen in a partition: nothing newer than that is ever forgotten.
ALTER TABLE usher_ownership ADD COLUMN newest_at BIGINT;
UPDATE usher_ownership o SET newest_at = (
    SELECT max(received_at) FROM usher_run r WHERE r.flow = o.flow AND r.partition = o.partition AND r.source <> 'usher');

-- Where an operator wants a flow to go on in a partition, until it does.
ALTER TABLE usher_ownership ADD COLUMN sought BIGINT;
