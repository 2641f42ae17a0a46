-- Organizations, their members and who is invited, as Clerk has them. Times are Clerk's: milliseconds since the epoch.
-- No foreign keys: webhooks come in any order, and some never.
CREATE TABLE usher_organizations (
    id         TEXT   PRIMARY KEY,
    name       TEXT,
    slug       TEXT,
    image_url  TEXT,
    created_by TEXT,                -- a user, as far as Clerk says
    created_at BIGINT,
    updated_at BIGINT NOT NULL,
    event_at   BIGINT NOT NULL,     -- decides between states of the same updated_at
    extra      JSON   NOT NULL      -- everything else Clerk sent
);

CREATE TABLE usher_memberships (
    id              TEXT   PRIMARY KEY,
    organization_id TEXT,
    user_id         TEXT,
    role            TEXT,
    role_name       TEXT,
    created_at      BIGINT,
    updated_at      BIGINT NOT NULL,
    event_at        BIGINT NOT NULL,
    extra           JSON   NOT NULL
);
CREATE INDEX usher_memberships_organization ON usher_memberships (organization_id);
CREATE INDEX usher_memberships_user ON usher_memberships (user_id);

CREATE TABLE usher_invitations (
    id              TEXT   PRIMARY KEY,
    organization_id TEXT,
    email           TEXT,
    role            TEXT,
    status          TEXT,           -- pending, accepted, revoked
    user_id         TEXT,           -- who accepted it
    inviter_id      TEXT,
    expires_at      BIGINT,
    created_at      BIGINT,
    updated_at      BIGINT NOT NULL,
    event_at        BIGINT NOT NULL,
    extra           JSON   NOT NULL
);
CREATE INDEX usher_invitations_organization ON usher_invitations (organization_id);
CREATE INDEX usher_invitations_user ON usher_invitations (user_id);

-- What was deleted, so that a late event does not bring it back.
CREATE TABLE usher_organizations_deleted (
    id         TEXT   PRIMARY KEY,
    deleted_at BIGINT NOT NULL
);
CREATE TABLE usher_memberships_deleted (
    id         TEXT   PRIMARY KEY,
    deleted_at BIGINT NOT NULL
);
CREATE TABLE usher_invitations_deleted (
    id         TEXT   PRIMARY KEY,
    deleted_at BIGINT NOT NULL
);
