-- `IF NOT EXISTS`: files of earlier versions have these tables, or some of them, and no history of migrations.

-- Partitions of a topic: the oldest existing offset (`low`) and the offset of the next record (`next`). Stored apart
-- from the records, so that a partition whose records are all deleted does not start again at 0.
CREATE TABLE IF NOT EXISTS partition (
    topic     TEXT    NOT NULL,
    partition INTEGER NOT NULL,
    low       INTEGER NOT NULL,
    next      INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS record (
    topic       TEXT    NOT NULL,
    partition   INTEGER NOT NULL,
    "offset"    INTEGER NOT NULL,
    key         TEXT    NOT NULL,
    headers     TEXT    NOT NULL, -- JSON: [[name, value], ...]
    body        BLOB    NOT NULL,
    appended_at INTEGER NOT NULL, -- milliseconds since the epoch
    UNIQUE (topic, partition, "offset")
);

-- For retention: finds old records without scanning the others.
CREATE INDEX IF NOT EXISTS record_age ON record (appended_at);

-- Committed offset of each group; NULL until its first commit. Records that a group has not read are not deleted.
CREATE TABLE IF NOT EXISTS cursor (
    "group"   TEXT    NOT NULL,
    topic     TEXT    NOT NULL,
    partition INTEGER NOT NULL,
    committed INTEGER,
    PRIMARY KEY ("group", topic, partition)
) WITHOUT ROWID;

-- Topics that keep the newest record of each key, and the time for which they keep it. A topic without a
-- row keeps each record until every group has read it and it is old.
CREATE TABLE IF NOT EXISTS compacted (
    topic     TEXT    NOT NULL PRIMARY KEY,
    keeps_for INTEGER NOT NULL -- milliseconds
) WITHOUT ROWID;
