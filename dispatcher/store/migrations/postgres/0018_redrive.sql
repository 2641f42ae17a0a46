-- Redrives of many dead letters. A console carries one out, and holds it meanwhile by a lease; after its end another one goes on.
CREATE TABLE usher_redrive (
    id         TEXT   PRIMARY KEY,
    at         BIGINT NOT NULL,
    who        TEXT   NOT NULL,
    until      BIGINT NOT NULL, -- dead letters that were given up later are not among them
    selection  TEXT   NOT NULL, -- the filters, as in the address of the page
    runs       BIGINT NOT NULL,
    skipped    BIGINT NOT NULL, -- dead letters that match and have died too often
    rate       BIGINT NOT NULL, -- commands a second at most
    stopped_by TEXT,
    stopped_at BIGINT,
    ended_at   BIGINT,
    trouble    TEXT,            -- the reason why it does not go on at this moment
    runner     TEXT   NOT NULL DEFAULT '',
    held_until BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE usher_redrive_run (
    redrive   TEXT   NOT NULL,
    number    BIGINT NOT NULL, -- the order, from 0
    flow      TEXT   NOT NULL,
    event_ref TEXT   NOT NULL,
    subject   TEXT   NOT NULL,
    partition BIGINT NOT NULL,
    origin    BIGINT NOT NULL,
    step      BIGINT NOT NULL, -- at which it had died
    deaths    BIGINT NOT NULL, -- at that time
    command   TEXT   NOT NULL, -- id of its event
    came      TEXT   NOT NULL, -- left, asked, done, failed, nothing or ended
    PRIMARY KEY (redrive, number)
);
CREATE INDEX usher_redrive_run_came ON usher_redrive_run (redrive, came, number);
