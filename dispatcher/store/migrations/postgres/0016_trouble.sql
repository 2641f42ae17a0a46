-- Destinations that a process holds back from: their breakers are open. A row is written when that begins and once a minute while it
-- lasts, and goes when the destination serves again; one that is not written any more is of a process that was killed.
CREATE TABLE usher_trouble (
    account    TEXT   NOT NULL,
    member     TEXT   NOT NULL, -- the process
    since      BIGINT NOT NULL,
    next_probe BIGINT,          -- the time of the next call that tries it; NULL while calls are let through one by one
    told_at    BIGINT NOT NULL,
    PRIMARY KEY (account, member)
);
