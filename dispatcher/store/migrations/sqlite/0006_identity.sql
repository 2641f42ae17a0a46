-- Source and instance are part of every identity: each is one text, source/instance/id. What stands here already was told
-- apart by ids alone; what its sender and instance were stands beside it.

CREATE TABLE usher_run_by_reference (
    flow          TEXT    NOT NULL,
    event_ref     TEXT    NOT NULL,
    subject       TEXT    NOT NULL,           -- whose lane it is in
    digest        TEXT,                       -- of its event's body; none of what earlier versions have admitted
    event         TEXT    NOT NULL,
    key           TEXT    NOT NULL,
    partition     INTEGER NOT NULL,
    position      INTEGER NOT NULL,           -- place in its lane: the offset of what queued it last
    origin        INTEGER NOT NULL,           -- the offset of its event
    source        TEXT    NOT NULL,
    type          TEXT    NOT NULL,
    instance      TEXT    NOT NULL,
    occurred_at   INTEGER NOT NULL,
    received_at   INTEGER NOT NULL,
    provenance    TEXT    NOT NULL,
    body          TEXT,                       -- gone once the run has ended well
    flow_version  TEXT    NOT NULL,
    state         TEXT    NOT NULL,
    step          INTEGER NOT NULL DEFAULT 0,
    destination   TEXT,                       -- the connector that the present step asks
    pass          INTEGER NOT NULL DEFAULT 0, -- how often it was run again after it had ended well
    attempts      INTEGER NOT NULL DEFAULT 0, -- of the present step, counted before each is made
    spent         INTEGER NOT NULL DEFAULT 0, -- attempts that count against the flow's bound
    unanswered    INTEGER NOT NULL DEFAULT 0, -- attempts in a row that ended with the process
    generation    INTEGER NOT NULL DEFAULT 0, -- of the present step's idempotency key
    deaths        INTEGER NOT NULL DEFAULT 0,
    letter        INTEGER NOT NULL DEFAULT 0, -- 1: its dead letter is published; 2: and is to be erased
    tried_since   INTEGER,                    -- the first attempt of the present step
    asked_at      INTEGER,                    -- when the kept request was sent first
    failed_at     INTEGER,
    request       BLOB,                       -- the exact request of an attempt whose outcome is not known
    claimed_at    INTEGER,
    claimed_until INTEGER,
    changed_at    INTEGER,                    -- when due_at and claimed_until were written, by the clock they count from
    results       TEXT    NOT NULL DEFAULT '{}',
    due_at        INTEGER,
    awaits_news   INTEGER NOT NULL DEFAULT 0, -- 1: news of the subject end the wait
    cancel_asked  INTEGER NOT NULL DEFAULT 0, -- 1: to end after the attempt that is under way
    reason        TEXT,
    error         TEXT,
    note          TEXT,
    before_event  TEXT,                       -- what the flow knew before its event, and what that changed
    expires_at    INTEGER,                    -- from then on the run is worth nothing, and nothing of its event is kept
    admitted_at   INTEGER NOT NULL,
    ended_at      INTEGER,
    PRIMARY KEY (flow, event_ref)
);
INSERT INTO usher_run_by_reference (
    flow, event_ref, subject, event, key, partition, position, origin, source, type, instance, occurred_at, received_at,
    provenance, body, flow_version, state, step, destination, pass, attempts, spent, unanswered, generation, deaths, letter,
    tried_since, asked_at, failed_at, request, claimed_at, claimed_until, results, due_at, awaits_news, cancel_asked,
    reason, error, note, before_event, expires_at, admitted_at, ended_at)
SELECT
    flow, source || '/' || instance || '/' || event,
    CASE WHEN key LIKE 'user\_%' ESCAPE '\' THEN 'clerk' ELSE source END || '/' || instance || '/' || key,
    event, key, partition, position, origin, source, type, instance, occurred_at, received_at,
    provenance, body, flow_version, state, step, destination, pass, attempts, spent, unanswered, generation, deaths,
    CASE WHEN state = 'dead' THEN 1 ELSE 0 END,
    tried_since, asked_at, failed_at, request, claimed_at, claimed_until, results, due_at, awaits_news, cancel_asked,
    reason, error, note, before_event, expires_at, admitted_at, ended_at
FROM usher_run;

CREATE TABLE usher_effect_by_reference (
    flow      TEXT    NOT NULL,
    event_ref TEXT    NOT NULL,
    pass      INTEGER NOT NULL,
    step      INTEGER NOT NULL,
    step_name TEXT    NOT NULL,
    connector TEXT    NOT NULL,
    id        TEXT    NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (flow, event_ref, pass, step)
);
INSERT INTO usher_effect_by_reference
SELECT e.flow,
       COALESCE((SELECT r.source || '/' || r.instance || '/' || r.event FROM usher_run r WHERE r.flow = e.flow AND r.event = e.event),
                'clerk/default/' || e.event),
       e.pass, e.step, e.step_name, e.connector, e.id, e.at
FROM usher_effect e;
DROP TABLE usher_effect;
ALTER TABLE usher_effect_by_reference RENAME TO usher_effect;

UPDATE usher_action SET event = COALESCE(
    (SELECT r.source || '/' || r.instance || '/' || r.event FROM usher_run r WHERE r.flow = usher_action.flow AND r.event = usher_action.event),
    'clerk/default/' || event)
WHERE event IS NOT NULL;
ALTER TABLE usher_action RENAME COLUMN event TO event_ref;

-- Until now only Clerk's events said anything of subjects. Which instance a row came from is not known where the sender has
-- more than one, and a mistake would let one instance decide over another's users: a row becomes that of the one instance
-- that its runs name, else the default one's.
ALTER TABLE usher_subject RENAME COLUMN key TO subject;
UPDATE usher_subject SET subject = 'clerk/' || COALESCE(
    (SELECT min(r.instance) FROM usher_run r WHERE r.key = usher_subject.subject AND r.source = 'clerk' HAVING min(r.instance) = max(r.instance)),
    'default') || '/' || subject;
ALTER TABLE usher_remembered RENAME COLUMN key TO subject;
UPDATE usher_remembered SET subject = 'clerk/' || COALESCE(
    (SELECT min(r.instance) FROM usher_run r WHERE r.key = usher_remembered.subject AND r.source = 'clerk' HAVING min(r.instance) = max(r.instance)),
    'default') || '/' || subject;

DROP TABLE usher_run;
ALTER TABLE usher_run_by_reference RENAME TO usher_run;
CREATE INDEX usher_run_unfinished ON usher_run (flow, partition, position) WHERE ended_at IS NULL;
CREATE INDEX usher_run_lane       ON usher_run (flow, subject, position)   WHERE ended_at IS NULL;
CREATE INDEX usher_run_due        ON usher_run (flow, partition, due_at)   WHERE state IN ('waiting', 'parked');
CREATE INDEX usher_run_news       ON usher_run (flow, subject)             WHERE state = 'waiting';
CREATE INDEX usher_run_dead       ON usher_run (flow, ended_at)            WHERE state = 'dead';
CREATE INDEX usher_run_expired    ON usher_run (flow, expires_at) WHERE state = 'dead' AND body IS NOT NULL AND expires_at IS NOT NULL;
CREATE INDEX usher_run_key        ON usher_run (key);
CREATE INDEX usher_run_event      ON usher_run (event);
CREATE INDEX usher_run_letter     ON usher_run (flow, event_ref)           WHERE letter = 2;
CREATE INDEX usher_run_ended      ON usher_run (ended_at)                  WHERE ended_at IS NOT NULL;

-- Who may not be written to, by instance; '*' stands for every one, which is what a row meant until now.
CREATE TABLE usher_reach_by_instance (
    address  TEXT    NOT NULL,
    instance TEXT    NOT NULL,
    scope    TEXT    NOT NULL,          -- a list, or 'all'
    held     INTEGER NOT NULL,          -- 1: not to be written to
    reason   TEXT    NOT NULL,
    who      TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    event    TEXT    NOT NULL,
    PRIMARY KEY (address, instance, scope)
);
INSERT INTO usher_reach_by_instance SELECT address, '*', scope, held, reason, who, at, event FROM usher_reach;
DROP TABLE usher_reach;
ALTER TABLE usher_reach_by_instance RENAME TO usher_reach;

-- Events that a flow has admitted and that started no run: each has its effects once.
CREATE TABLE usher_event (
    flow        TEXT    NOT NULL,
    event_ref   TEXT    NOT NULL,
    digest      TEXT    NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (flow, event_ref)
);
CREATE INDEX usher_event_received ON usher_event (flow, received_at);

-- Records that no flow can take, kept by whichever flow comes first.
CREATE TABLE usher_refused (
    partition  INTEGER NOT NULL,
    position   INTEGER NOT NULL, -- its offset
    at         INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    error      TEXT    NOT NULL,
    event      TEXT    NOT NULL, -- its id, as far as there is one
    record_key TEXT    NOT NULL,
    body       BLOB    NOT NULL,
    PRIMARY KEY (partition, position)
);

-- How new the newest webhook is that a flow has seen in a partition: nothing newer than that is ever forgotten.
ALTER TABLE usher_ownership ADD COLUMN newest_at INTEGER;
UPDATE usher_ownership SET newest_at = (
    SELECT max(received_at) FROM usher_run r
    WHERE r.flow = usher_ownership.flow AND r.partition = usher_ownership.partition AND r.source <> 'usher');

-- Where an operator wants a flow to go on in a partition, until it does.
ALTER TABLE usher_ownership ADD COLUMN sought INTEGER;
