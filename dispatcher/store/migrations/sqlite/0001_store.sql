-- Times are milliseconds since the epoch. Texts that hold JSON are read by Usher alone.

-- What the store was laid out for; the order of keys hangs on it.
CREATE TABLE usher_meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- Who works on a partition of a flow. Every write about its runs is conditional on the epoch. The frontier is the offset
-- below which every event is accounted for.
CREATE TABLE usher_ownership (
    flow      TEXT   NOT NULL,
    partition INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    owner     TEXT   NOT NULL,
    owned_at  INTEGER NOT NULL,
    frontier  INTEGER,
    PRIMARY KEY (flow, partition)
);

-- Flows as they were when runs began, so that a run keeps its version to its end.
CREATE TABLE usher_flow (
    flow    TEXT NOT NULL,
    version TEXT NOT NULL,
    source  TEXT NOT NULL,
    PRIMARY KEY (flow, version)
);

CREATE TABLE usher_run (
    flow          TEXT   NOT NULL,
    event         TEXT   NOT NULL,
    key           TEXT   NOT NULL,
    partition     INTEGER NOT NULL,
    position      INTEGER NOT NULL,           -- place in its lane: the offset of what queued it last
    origin        INTEGER NOT NULL,           -- the offset of its event
    source        TEXT   NOT NULL,
    type          TEXT   NOT NULL,
    instance      TEXT   NOT NULL,
    occurred_at   INTEGER NOT NULL,
    received_at   INTEGER NOT NULL,
    provenance    TEXT   NOT NULL,
    body          TEXT,                      -- gone once the run has ended well
    flow_version  TEXT   NOT NULL,
    state         TEXT   NOT NULL,
    step          INTEGER NOT NULL DEFAULT 0,
    attempts      INTEGER NOT NULL DEFAULT 0, -- of the present step, counted before each is made
    generation    INTEGER NOT NULL DEFAULT 0, -- of the present step's idempotency key
    deaths        INTEGER NOT NULL DEFAULT 0,
    request       BLOB,                     -- the exact request of an attempt whose outcome is not known
    claimed_at    INTEGER,
    claimed_until INTEGER,
    results       TEXT   NOT NULL DEFAULT '{}',
    due_at        INTEGER,
    awaits_news   INTEGER NOT NULL DEFAULT 0, -- 1: news of the subject end the wait
    reason        TEXT,
    error         TEXT,
    note          TEXT,
    admitted_at   INTEGER NOT NULL,
    ended_at      INTEGER,
    PRIMARY KEY (flow, event)
);
CREATE INDEX usher_run_unfinished ON usher_run (flow, partition, position) WHERE ended_at IS NULL;
CREATE INDEX usher_run_lane       ON usher_run (flow, key, position)       WHERE ended_at IS NULL;
CREATE INDEX usher_run_due        ON usher_run (flow, due_at)              WHERE state = 'waiting';
CREATE INDEX usher_run_key        ON usher_run (key);
CREATE INDEX usher_run_ended      ON usher_run (ended_at)                  WHERE ended_at IS NOT NULL;

-- What a step did outside.
CREATE TABLE usher_effect (
    flow      TEXT   NOT NULL,
    event     TEXT   NOT NULL,
    step      INTEGER NOT NULL,
    step_name TEXT   NOT NULL,
    connector TEXT   NOT NULL,
    id        TEXT   NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (flow, event, step)
);

-- Whom a key stands for, as last known: the newest snapshot, or a tombstone.
CREATE TABLE usher_subject (
    key         TEXT   PRIMARY KEY,
    updated_at  INTEGER NOT NULL,
    occurred_at INTEGER NOT NULL,
    event       TEXT   NOT NULL,
    snapshot    TEXT,
    deleted_at  INTEGER,
    revision    INTEGER NOT NULL
);
