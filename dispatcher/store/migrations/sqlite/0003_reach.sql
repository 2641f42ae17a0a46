-- Whom not to write to: the newest word about each address. No address is kept, only its SHA-256 in lower case. Who may be
-- written to again keeps a row, so that older news that come late do not count.
CREATE TABLE usher_reach (
    address TEXT    NOT NULL,
    scope   TEXT    NOT NULL,           -- a list, or 'all'
    held    INTEGER NOT NULL,           -- 1: not to be written to
    reason  TEXT    NOT NULL,
    who     TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    event   TEXT    NOT NULL,
    PRIMARY KEY (address, scope)
);
