-- Which replicas begin nothing of a paused flow, since which pause, and with how many steps still under way.
CREATE TABLE usher_pause_seen (
    flow      TEXT   NOT NULL,
    owner     TEXT   NOT NULL,
    paused_at INTEGER NOT NULL,
    under_way INTEGER NOT NULL,
    PRIMARY KEY (flow, owner)
);
