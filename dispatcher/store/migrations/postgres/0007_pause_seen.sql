-- Which replicas begin nothing of a paused flow, since which pause, and with how many steps still under way.
CREATE TABLE usher_pause_seen (
    flow      TEXT   NOT NULL,
    owner     TEXT   NOT NULL,
    paused_at BIGINT NOT NULL,
    under_way BIGINT NOT NULL,
    PRIMARY KEY (flow, owner)
);
