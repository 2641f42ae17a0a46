-- Runs in two tables: open ones, which are few and written often, and ended ones, which are many and written once. No two
-- indexes of a table begin with the same column, so that each look-up has one plan, whatever the statistics say.

-- Replicas of the earlier version write no more from here on.
LOCK TABLE usher_run, usher_effect IN ACCESS EXCLUSIVE MODE;

CREATE TABLE usher_open_run (
    flow          TEXT   NOT NULL,
    event_ref     TEXT   NOT NULL,                           -- source/instance/id
    subject       TEXT   NOT NULL,                           -- source/instance/key: its lane
    partition     BIGINT NOT NULL,
    position      BIGINT NOT NULL,                           -- place in its lane: the offset of the record that queued it last
    origin        BIGINT NOT NULL,                           -- the offset of its event
    type          TEXT   NOT NULL,
    occurred_at   BIGINT NOT NULL,
    received_at   BIGINT NOT NULL,
    admitted_at   BIGINT NOT NULL,
    digest        TEXT,                                      -- of its event's body; NULL for what the first versions have admitted
    provenance    TEXT   NOT NULL,
    body          TEXT,
    before_event  TEXT,                                      -- what the flow knew before its event, and what that changed
    expires_at    BIGINT,                                    -- after this time it is not executed, and nothing of its event is kept
    flow_version  TEXT   NOT NULL,
    state         TEXT   NOT NULL,
    step          BIGINT NOT NULL DEFAULT 0,
    destination   TEXT,                                      -- the account that the step calls
    pass          BIGINT NOT NULL DEFAULT 0,                 -- number of times it was run again after its end
    attempts      BIGINT NOT NULL DEFAULT 0,                 -- of the step, counted before each is made
    spent         BIGINT NOT NULL DEFAULT 0,                 -- attempts that count against the flow's bound
    unanswered    BIGINT NOT NULL DEFAULT 0,                 -- attempts in a row that ended with the process
    generation    BIGINT NOT NULL DEFAULT 0,                 -- of the step's idempotency key
    deaths        BIGINT NOT NULL DEFAULT 0,
    letter        BIGINT NOT NULL DEFAULT 0,                 -- 1: its dead letter is published; 2: and is to be erased
    tried_since   BIGINT,                                    -- the first attempt of the step
    asked_at      BIGINT,                                    -- the time at which the stored request was first sent
    failed_at     BIGINT,
    claimed_at    BIGINT,
    claimed_until BIGINT,
    changed_at    BIGINT,                                    -- the time at which due_at and claimed_until were written, by the clock that they count from
    due_at        BIGINT,
    wakes_at      BIGINT,                                    -- due_at, while the run waits or is parked
    awaits_news   BIGINT NOT NULL DEFAULT 0,                 -- 1: news of the subject end the wait
    cancel_asked  BIGINT NOT NULL DEFAULT 0,                 -- 1: it ends after the attempt in flight
    request       BYTEA,                                     -- the exact request of an attempt whose outcome is not known
    results       TEXT   NOT NULL DEFAULT '{}',
    reason        TEXT,
    error         TEXT,
    note          TEXT,
    effects       TEXT,                                      -- what its steps did at destinations, as a JSON array; NULL for nothing
    PRIMARY KEY (event_ref, flow)
) WITH (fillfactor = 50, toast_tuple_target = 512);
-- Half of each page stays free for the claims of its rows, and bodies are kept apart from the rows: so a claim writes no index
-- and no body. A body is compressed once and read once; a server without LZ4 does that in its own, slower way.
DO $$ BEGIN
    EXECUTE 'ALTER TABLE usher_open_run ALTER COLUMN body SET COMPRESSION lz4';
    EXECUTE 'ALTER TABLE usher_subject ALTER COLUMN snapshot SET COMPRESSION lz4';
EXCEPTION WHEN feature_not_supported OR syntax_error THEN
    RAISE DEBUG 'no LZ4';
END $$;
CREATE INDEX usher_open_run_lane     ON usher_open_run (subject, flow, position);
CREATE INDEX usher_open_run_position ON usher_open_run (partition, flow, position, event_ref);
CREATE INDEX usher_open_run_news     ON usher_open_run (subject, flow) WHERE awaits_news = 1;
CREATE INDEX usher_open_run_due      ON usher_open_run (wakes_at, flow, partition) WHERE wakes_at IS NOT NULL;

CREATE TABLE usher_ended_run (
    flow         TEXT   NOT NULL,
    event_ref    TEXT   NOT NULL,                            -- source/instance/id
    subject      TEXT   NOT NULL,                            -- source/instance/key: its lane
    partition    BIGINT NOT NULL,
    position     BIGINT NOT NULL,                            -- place in its lane: the offset of the record that queued it last
    origin       BIGINT NOT NULL,                            -- the offset of its event
    type         TEXT   NOT NULL,
    occurred_at  BIGINT NOT NULL,
    received_at  BIGINT NOT NULL,
    admitted_at  BIGINT NOT NULL,
    digest       TEXT,                                       -- of its event's body; NULL for what the first versions have admitted
    provenance   TEXT   NOT NULL,
    body         TEXT,
    before_event TEXT,                                       -- what the flow knew before its event, and what that changed
    expires_at   BIGINT,                                     -- after this time it is not executed, and nothing of its event is kept
    flow_version TEXT   NOT NULL,
    state        TEXT   NOT NULL,
    step         BIGINT NOT NULL DEFAULT 0,
    destination  TEXT,                                       -- the account that the step calls
    pass         BIGINT NOT NULL DEFAULT 0,                  -- number of times it was run again after its end
    attempts     BIGINT NOT NULL DEFAULT 0,                  -- of the step, counted before each is made
    generation   BIGINT NOT NULL DEFAULT 0,                  -- of the step's idempotency key
    deaths       BIGINT NOT NULL DEFAULT 0,
    letter       BIGINT NOT NULL DEFAULT 0,                  -- 1: its dead letter is published; 2: and is to be erased
    asked_at     BIGINT,                                     -- the time at which the stored request was first sent
    failed_at    BIGINT,
    request      BYTEA,                                      -- the exact request of an attempt whose outcome is not known
    results      TEXT,                                       -- NULL once the run has ended well
    reason       TEXT,
    error        TEXT,
    note         TEXT,
    effects      TEXT,                                       -- what its steps did at destinations, as a JSON array; NULL for nothing
    ended_at     BIGINT NOT NULL,
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
    (SELECT json_agg(json_build_object('pass', e.pass, 'step', e.step, 'name', e.step_name, 'connector', e.connector, 'id', e.id, 'at', e.at)
                     ORDER BY e.pass, e.step)::text FROM usher_effect e WHERE e.flow = r.flow AND e.event_ref = r.event_ref)
FROM usher_run r WHERE ended_at IS NULL;

INSERT INTO usher_ended_run (
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, generation,
    deaths, letter, asked_at, failed_at, request, results, reason, error, note, effects, ended_at)
SELECT
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, generation,
    deaths, letter, asked_at, failed_at, request, results, reason, error, note,
    (SELECT json_agg(json_build_object('pass', e.pass, 'step', e.step, 'name', e.step_name, 'connector', e.connector, 'id', e.id, 'at', e.at)
                     ORDER BY e.pass, e.step)::text FROM usher_effect e WHERE e.flow = r.flow AND e.event_ref = r.event_ref),
    ended_at
FROM usher_run r WHERE ended_at IS NOT NULL;

-- Senders and instances of what was ever admitted: with each of them an id or a key makes a reference to look for.
CREATE TABLE usher_sender (
    source   TEXT NOT NULL,
    instance TEXT NOT NULL,
    PRIMARY KEY (source, instance)
);
INSERT INTO usher_sender SELECT DISTINCT source, instance FROM usher_run;
INSERT INTO usher_sender SELECT DISTINCT split_part(subject, '/', 1), instance FROM usher_run ON CONFLICT DO NOTHING;

DROP TABLE usher_run;
DROP TABLE usher_effect;

-- All runs, and what they did, as operators read them.
CREATE VIEW usher_run AS
SELECT a.*, split_part(event_ref, '/', 1) AS source, split_part(event_ref, '/', 2) AS instance,
       substr(event_ref, length(split_part(event_ref, '/', 1)) + length(split_part(event_ref, '/', 2)) + 3) AS event,
       substr(subject, length(split_part(subject, '/', 1)) + length(split_part(subject, '/', 2)) + 3) AS key
FROM (
    SELECT
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, spent,
    unanswered, generation, deaths, letter, tried_since, asked_at, failed_at, claimed_at, claimed_until, changed_at,
    due_at, awaits_news, cancel_asked, request, results, reason, error, note, effects, NULL::bigint AS ended_at
    FROM usher_open_run
    UNION ALL
    SELECT
    flow, event_ref, subject, partition, position, origin, type, occurred_at, received_at, admitted_at, digest,
    provenance, body, before_event, expires_at, flow_version, state, step, destination, pass, attempts, 0::bigint AS spent,
    0::bigint AS unanswered, generation, deaths, letter, NULL::bigint AS tried_since, asked_at, failed_at,
    NULL::bigint AS claimed_at, NULL::bigint AS claimed_until, NULL::bigint AS changed_at, NULL::bigint AS due_at,
    0::bigint AS awaits_news, 0::bigint AS cancel_asked, request, results, reason, error, note, effects, ended_at
    FROM usher_ended_run) AS a;
CREATE VIEW usher_effect AS
SELECT r.flow, r.event_ref, (e ->> 'pass')::bigint AS pass, (e ->> 'step')::bigint AS step, e ->> 'name' AS step_name,
       e ->> 'connector' AS connector, e ->> 'id' AS id, (e ->> 'at')::bigint AS at
FROM usher_run r, json_array_elements(r.effects::json) AS e;
