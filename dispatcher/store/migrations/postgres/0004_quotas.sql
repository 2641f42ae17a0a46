-- How the processes that use an account share its quota, and how much of its caps is used.

CREATE TABLE usher_quota_member (
    account       TEXT   NOT NULL,
    member        TEXT   NOT NULL,
    wants         BIGINT NOT NULL, -- 0 nothing, 1 something, 2 something urgent
    serves_urgent BIGINT NOT NULL,
    pace          BIGINT NOT NULL, -- calls in the time that the quota names
    at_once       BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL, -- by this database's clock, in milliseconds
    heard         BIGINT NOT NULL, -- the pace that the destination has named to it: so many calls, 0 for none,
    heard_ms      BIGINT NOT NULL, -- in so many milliseconds
    PRIMARY KEY (account, member)
);

CREATE TABLE usher_quota_used (
    account TEXT   NOT NULL,
    span    TEXT   NOT NULL, -- a month, a day or an hour
    used    BIGINT NOT NULL, -- handed out to processes; what they have not used of it is lost
    ends_at BIGINT NOT NULL,
    PRIMARY KEY (account, span)
);
