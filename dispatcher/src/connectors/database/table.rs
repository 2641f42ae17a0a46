//! Which tables there are, and where their columns come from.

use serde::{Deserialize, Serialize};
use usher_proto::Json;

use crate::subject::{primary_email, primary_phone};

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) enum Kind {
    /// Requests kept by earlier versions do not say; there were only users.
    #[default]
    User,
    Organization,
    Membership,
    Invitation,
}

/// Where a column's text comes from.
pub(super) enum From {
    /// The field of the same name.
    Field,
    /// A field of another name, or inside another.
    At(&'static [&'static str]),
    /// Found in the object.
    Found(fn(Json<'_>) -> Option<String>),
}

/// A table. Each also has `created_at`, `updated_at`, `event_at` and `extra`, which holds all that has no column.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// What Clerk calls such an object.
    pub(super) object: &'static str,
    /// Columns of text; the first is the id.
    pub(super) texts: &'static [(&'static str, From)],
    /// Columns of times in milliseconds, fields of the same name, besides those of every table.
    pub(super) times: &'static [&'static str],
    /// Columns that name something else. Once that is deleted, so is this, and nothing brings it back.
    pub(super) belongs_to: &'static [(&'static str, Kind)],
    /// Whether an object that was made after a deletion is another one, though it has the same id.
    pub(super) may_return: bool,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::User, Self::Organization, Self::Membership, Self::Invitation];

    pub(super) const fn table(self) -> &'static Table {
        match self {
            Self::User => &USERS,
            Self::Organization => &ORGANIZATIONS,
            Self::Membership => &MEMBERSHIPS,
            Self::Invitation => &INVITATIONS,
        }
    }
}

const ID: (&str, From) = ("id", From::Field);

static USERS: Table = Table {
    name: "usher_users",
    object: "user",
    texts: &[
        ID,
        ("email", From::Found(primary_email)),
        ("phone", From::Found(primary_phone)),
        ("username", From::Field),
        ("first_name", From::Field),
        ("last_name", From::Field),
        ("image_url", From::Field),
        ("external_id", From::Field),
    ],
    times: &[],
    belongs_to: &[],
    may_return: false,
};

static ORGANIZATIONS: Table = Table {
    name: "usher_organizations",
    object: "organization",
    texts: &[ID, ("name", From::Field), ("slug", From::Field), ("image_url", From::Field), ("created_by", From::Field)],
    times: &[],
    belongs_to: &[],
    may_return: false,
};

static MEMBERSHIPS: Table = Table {
    name: "usher_memberships",
    object: "organization_membership",
    texts: &[
        ID,
        ("organization_id", From::At(&["organization", "id"])),
        // Clerk's schema does not require it; every example has it.
        ("user_id", From::At(&["public_user_data", "user_id"])),
        ("role", From::Field),
        ("role_name", From::Field),
    ],
    times: &[],
    belongs_to: &[("organization_id", Kind::Organization), ("user_id", Kind::User)],
    // Whether somebody who is let in again gets a new membership id is not documented.
    may_return: true,
};

static INVITATIONS: Table = Table {
    name: "usher_invitations",
    object: "organization_invitation",
    texts: &[
        ID,
        ("organization_id", From::Field),
        ("email", From::At(&["email_address"])),
        ("role", From::Field),
        // pending, accepted or revoked; neither it nor organization_id is required by Clerk's schema.
        ("status", From::Field),
        // Who accepted it.
        ("user_id", From::Field),
        ("inviter_id", From::Field),
    ],
    times: &["expires_at"],
    belongs_to: &[("organization_id", Kind::Organization), ("user_id", Kind::User)],
    may_return: false,
};
