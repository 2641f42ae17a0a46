-- Runs that are not done stand in a small table, the others in one to which rows are only added.
CREATE TABLE partition_owner (
    partition int4 PRIMARY KEY,
    epoch     int8 NOT NULL,
    frontier  int8 NOT NULL
);
INSERT INTO partition_owner (partition, epoch, frontier) SELECT number, 1, 0 FROM generate_series(0, 7) AS number;
CREATE TABLE open_run (
    id            int8 PRIMARY KEY,
    claimed_until int8,
    event         text NOT NULL,
    user_id       text NOT NULL,
    request       bytea,
    body          bytea NOT NULL
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX open_run_event ON open_run (event);
CREATE INDEX open_run_lane ON open_run (user_id, id);
CREATE TABLE ended_run (
    event    text PRIMARY KEY,
    id       int8 NOT NULL,
    ended_at int8 NOT NULL,
    user_id  text NOT NULL,
    effect   text NOT NULL
);
CREATE INDEX ended_run_user ON ended_run (user_id);
CREATE TABLE subject (
    user_id    text PRIMARY KEY,
    updated_at int8 NOT NULL,
    snapshot   bytea NOT NULL
) WITH (fillfactor = 70);
CREATE TABLE suppression (address text PRIMARY KEY);
INSERT INTO suppression (address) SELECT 'somebody' || number || '@mail.test' FROM generate_series(1, 10000) AS number;
-- Statistics of a queue are always old. These leave the planner only look-ups by index.
SET jit = off;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
