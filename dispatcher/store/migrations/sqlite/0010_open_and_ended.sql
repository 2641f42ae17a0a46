-- Runs in two tables: open ones, which are few and written often, and ended ones, which are many and written once. No two
-- indexes of a table begin with the same column, so that each look-up has one plan, whatever the statistics say.

CREATE TABLE usher_open_run (
    flow          TEXT    NOT NULL,
    event_ref     TEXT    NOT NULL,                          -- source/instance/id
    subject       TEXT    NOT NULL,                          -- source/instance/key: its lane
    partition     INTEGER NOT NULL,
    position      INTEGER NOT NULL,                          -- place in its lane: the offset of the record that queued it last
    origin        INTEGER NOT NULL,                          -- the offset of its event
    type          TEXT    NOT NULL,
    occurred_at   INTEGER NOT NULL,
    received_at   INTEGER NOT NULL,
    admitted_at   INTEGER NOT NULL,
    digest        TEXT,                                      -- of its event's body; NULL for what the first versions have admitted
    provenance    TEXT    NOT NULL,
    body          TEXT,
    before_event  TEXT,                                      -- what the flow knew before its event, and what that changed
    expires_at    INTEGER,                                   -- after this time it is not executed, and nothing of its event is kept
    flow_version  TEXT    NOT NULL,
    state         TEXT    NOT NULL,
    step          INTEGER NOT NULL DEFAULT 0,
    destination   TEXT,                                      -- the account that the step calls
    pass          INTEGER NOT NULL DEFAULT 0,                -- number of times it was run again after its end
    attempts      INTEGER NOT NULL DEFAULT 0,                -- of the step, counted before each is made
    spent         INTEGER NOT NULL DEFAULT 0,                -- attempts that count against the flow's bound
    unanswered    INTEGER NOT NULL DEFAULT 0,                -- attempts in a row that ended with the process
    generation    INTEGER NOT NULL DEFAULT 0,                -- of the step's idempotency key
    deaths        INTEGER NOT NULL DEFAULT 0,
    letter        INTEGER NOT NULL DEFAULT 0,                -- 1: its dead letter is published; 2: and is to be erased
    tried_since   INTEGER,                                   -- the first attempt of the step
    asked_at      INTEGER,                                   -- the time at which the stored request was first sent
    failed_at     INTEGER,
    claimed_at    INTEGER,
    claimed_until INTEGER,
    changed_at    INTEGER,                                   -- the time at which due_at and claimed_until were written, by the clock that they count from
    due_at        INTEGER,
    wakes_at      INTEGER,                                   -- due_at, while the run waits or is parked
    awaits_news   INTEGER NOT NULL DEFAULT 0,                -- 1: news of the subject end the wait
    cancel_asked  INTEGER NOT NULL DEFAULT 0,                -- 1: it ends after the attempt in flight
    request       BLOB,                                      -- the exact request of an attempt whose outcome is not known
    results       TEXT    NOT NULL DEFAULT '{}',
    reason        TEXT,
    error         TEXT,
    note          TEXT,
    effects       TEXT,                                      -- what its steps did at destinations, as a JSON array; NULL for nothing
    PRIMARY KEY (event_ref, flow)
);
CREATE INDEX usher_open_run_lane     ON usher_open_run (subject, flow, position);
CREATE INDEX usher_open_run_position ON usher_open_run (partition, flow, position, event_ref);
CREATE INDEX usher_open_run_news     ON usher_open_run (subject, flow) WHERE awaits_news = 1;
CREATE INDEX usher_open_run_due      ON usher_open_run (flow, partition, wakes_at) WHERE wakes_at IS NOT NULL;

CREATE TABLE usher_ended_run (
    flow         TEXT    NOT NULL,
    event_ref    TEXT    NOT NULL,                           -- source/instance/id
    subject      TEXT    NOT NULL,                           -- source/instance/key: its lane
    partition    INTEGER NOT NULL,
    position     INTEGER NOT NULL,                           -- place in its lane: the offset of the record that queued it last
    origin       INTEGER NOT NULL,                           -- the offset of its event
    type         TEXT    NOT NULL,
    occurred_at  INTEGER NOT NULL,
    received_at  INTEGER NOT NULL,
    admitted_at  INTEGER NOT NULL,
    digest       TEXT,                                       -- of its event's body; NULL for what the first versions have admitted
    provenance   TEXT    NOT NULL,
    body         TEXT,
    before_event TEXT,                                       -- what the flow knew before its event, and what that changed
    expires_at   INTEGER,                                    -- after this time it is not executed, and nothing of its event is kept
    flow_version TEXT    NOT NULL,
    state        TEXT    NOT NULL,
    step         INTEGER NOT NULL DEFAULT 0,
    destination  TEXT,                                       -- the account that the step calls
    pass         INTEGER NOT NULL DEFAULT 0,                 -- number of times it was run again after its end
    attempts     INTEGER NOT NULL DEFAULT 0,                 -- of the step, counted before each is made
    generation   INTEGER NOT NULL DEFAULT 0,                 -- of the step's idempotency key
    deaths       INTEGER NOT NULL DEFAULT 0,
    letter       INTEGER NOT NULL DEFAULT 0,                 -- 1: its dead letter is published; 2: and is to be erased
    asked_at     INTEGER,                                    -- the time at which the stored request was first sent
    failed_at    INTEGER,
    request      BLOB,                                       -- the exact request of an attempt whose outcome is not known
    results      TEXT,                                       -- NULL once the run has ended well
    reason       TEXT,
    error        TEXT,
    note         TEXT,
    effects      TEXT,                                       -- what its steps did at destinations, as a JSON array; NULL for nothing
    ended_at     INTEGER NOT NULL,
    PRIMARY KEY (event_ref, flow)
);
CREATE INDEX usher_ended_run_subject  ON usher_ended_run (subject);
CREATE INDEX usher_ended_run_received ON usher_ended_run (flow, received_at);
CREATE INDEX usher_ended_run_dead     ON usher_ended_run (ended_at, flow) WHERE state = 'dead';
CREATE INDEX usher_ended_run_letter   ON usher_ended_run (letter, flow, event_ref) WHERE letter > 0;
CREATE INDEX usher_ended_run_expired  ON usher_ended_run (expires_at, flow) WHERE state = 'dead' AND body IS NOT NULL AND expires_at IS NOT NULL;

INSERT INTO usher_open_run (
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, spent,
    unanswered, generation, deaths, letter, tried_since, asked_at, failed_at, claimed_at, claimed_until, changed_at,
    due_at, wakes_at, awaits_news, cancel_asked, request, results, reason, error, note, effects)
SELECT
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, spent,
    unanswered, generation, deaths, letter, tried_since, asked_at, failed_at, claimed_at, claimed_until, changed_at,
    due_at,
    CASE WHEN state IN ('waiting', 'parked') THEN due_at END, awaits_news, cancel_asked, request, results, reason, error, note,
    (SELECT json_group_array(json_object('pass', e.pass, 'step', e.step, 'name', e.step_name, 'connector', e.connector, 'id', e.id, 'at', e.at))
        FROM (SELECT * FROM usher_effect e WHERE e.flow = r.flow AND e.event_ref = r.event_ref ORDER BY e.pass, e.step) e HAVING count(*) > 0)
FROM usher_run r WHERE ended_at IS NULL;

INSERT INTO usher_ended_run (
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, generation,
    deaths, letter, asked_at, failed_at, request, results, reason, error, note, effects, ended_at)
SELECT
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, generation,
    deaths, letter, asked_at, failed_at, request, results, reason, error, note,
    (SELECT json_group_array(json_object('pass', e.pass, 'step', e.step, 'name', e.step_name, 'connector', e.connector, 'id', e.id, 'at', e.at))
        FROM (SELECT * FROM usher_effect e WHERE e.flow = r.flow AND e.event_ref = r.event_ref ORDER BY e.pass, e.step) e HAVING count(*) > 0),
    ended_at
FROM usher_run r WHERE ended_at IS NOT NULL;

-- Senders and instances of what was ever admitted: with each of them an id or a key makes a reference to look for.
CREATE TABLE usher_sender (
    source   TEXT NOT NULL,
    instance TEXT NOT NULL,
    PRIMARY KEY (source, instance)
);
INSERT INTO usher_sender SELECT DISTINCT source, instance FROM usher_run;
INSERT INTO usher_sender
SELECT DISTINCT substr(subject, 1, instr(subject, '/') - 1), instance FROM usher_run WHERE true ON CONFLICT DO NOTHING;

DROP TABLE usher_run;
DROP TABLE usher_effect;

-- All runs, and what they did, as operators read them.
CREATE VIEW usher_run AS
SELECT a.*, substr(event_ref, 1, instr(event_ref, '/') - 1) AS source,
       substr(substr(event_ref, instr(event_ref, '/') + 1), 1, instr(substr(event_ref, instr(event_ref, '/') + 1), '/') - 1) AS instance,
       substr(substr(event_ref, instr(event_ref, '/') + 1), instr(substr(event_ref, instr(event_ref, '/') + 1), '/') + 1) AS event,
       substr(substr(subject, instr(subject, '/') + 1), instr(substr(subject, instr(subject, '/') + 1), '/') + 1) AS key
FROM (
    SELECT
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, spent,
    unanswered, generation, deaths, letter, tried_since, asked_at, failed_at, claimed_at, claimed_until, changed_at,
    due_at, awaits_news, cancel_asked, request, results, reason, error, note, effects, NULL AS ended_at
    FROM usher_open_run
    UNION ALL
    SELECT
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, 0 AS spent,
    0 AS unanswered, generation, deaths, letter, NULL AS tried_since, asked_at, failed_at, NULL AS claimed_at,
    NULL AS claimed_until, NULL AS changed_at, NULL AS due_at, 0 AS awaits_news, 0 AS cancel_asked, request, results,
    reason, error, note, effects, ended_at
    FROM usher_ended_run) AS a;
CREATE VIEW usher_effect AS
SELECT r.flow, r.event_ref, e.value ->> 'pass' AS pass, e.value ->> 'step' AS step, e.value ->> 'name' AS step_name,
       e.value ->> 'connector' AS connector, e.value ->> 'id' AS id, e.value ->> 'at' AS at
FROM usher_run r, json_each(r.effects) AS e;
