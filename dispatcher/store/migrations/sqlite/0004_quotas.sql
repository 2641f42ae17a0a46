-- How the processes that use an account share its quota, and how much of its caps is used.

CREATE TABLE usher_quota_member (
    account       TEXT   NOT NULL,
    member        TEXT   NOT NULL,
    wants         INTEGER NOT NULL, -- 0 nothing, 1 something, 2 something urgent
    serves_urgent INTEGER NOT NULL,
    pace          INTEGER NOT NULL, -- calls in the time that the quota names
    at_once       INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL, -- by this database's clock, in milliseconds
    heard         INTEGER NOT NULL, -- the pace that the destination has named to it: so many calls, 0 for none,
    heard_ms      INTEGER NOT NULL, -- in so many milliseconds
    PRIMARY KEY (account, member)
);

CREATE TABLE usher_quota_used (
    account TEXT   NOT NULL,
    span    TEXT   NOT NULL, -- a month, a day or an hour
    used    INTEGER NOT NULL, -- handed out to processes; what they have not used of it is lost
    ends_at INTEGER NOT NULL,
    PRIMARY KEY (account, span)
);
