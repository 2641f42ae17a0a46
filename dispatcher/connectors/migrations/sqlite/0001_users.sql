-- The users as Clerk has them. Times are Clerk's: milliseconds since the epoch.
CREATE TABLE usher_users (
    id          TEXT   PRIMARY KEY,
    email       TEXT,                -- the primary address
    phone       TEXT,                -- the primary number
    username    TEXT,
    first_name  TEXT,
    last_name   TEXT,
    image_url   TEXT,
    external_id TEXT,
    created_at  INTEGER,
    updated_at  INTEGER NOT NULL,
    event_at    INTEGER NOT NULL,     -- decides between states of the same updated_at
    extra       TEXT   NOT NULL      -- everything else Clerk sent
);
CREATE INDEX usher_users_email ON usher_users (email);

-- Who was deleted, so that a late event does not bring them back.
CREATE TABLE usher_users_deleted (
    id         TEXT   PRIMARY KEY,
    deleted_at INTEGER NOT NULL
);
