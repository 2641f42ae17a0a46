//! The tables and the sources of their columns.

use serde::{Deserialize, Serialize};
use usher_clerk::{primary_email, primary_phone};
use usher_proto::Json;

/// Type of object that a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub(super) enum TableKind {
    /// The default: requests stored by earlier versions have no kind, because there were only users.
    #[default]
    User,
    Organization,
    Membership,
    Invitation,
}

/// Source of a column's text.
pub(super) enum ColumnSource {
    /// The field of the same name.
    Field,
    /// A field of another name, or inside another field.
    At(&'static [&'static str]),
    /// The result of a function of the object.
    Found(fn(Json<'_>) -> Option<String>),
}

/// A table. Each also has `created_at`, `updated_at`, `event_at` and `extra`, which holds all members without a column.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Value of `object` in Clerk's JSON.
    pub(super) object: &'static str,
    /// Text columns and their sources; the first is the id.
    pub(super) texts: &'static [(&'static str, ColumnSource)],
    /// Time columns in milliseconds, from fields of the same name, besides those of every table.
    pub(super) times: &'static [&'static str],
    /// Columns that refer to an owner. If the owner is deleted, the row is deleted as well and cannot return.
    pub(super) belongs_to: &'static [(&'static str, TableKind)],
    /// True if an object created after a deletion is a different object although it has the same id.
    pub(super) may_return: bool,
}

impl TableKind {
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

const ID: (&str, ColumnSource) = ("id", ColumnSource::Field);

static USERS: Table = Table {
    name: "usher_users",
    object: "user",
    texts: &[
        ID,
        ("email", ColumnSource::Found(primary_email)),
        ("phone", ColumnSource::Found(primary_phone)),
        ("username", ColumnSource::Field),
        ("first_name", ColumnSource::Field),
        ("last_name", ColumnSource::Field),
        ("image_url", ColumnSource::Field),
        ("external_id", ColumnSource::Field),
    ],
    times: &[],
    belongs_to: &[],
    may_return: false,
};

static ORGANIZATIONS: Table = Table {
    name: "usher_organizations",
    object: "organization",
    texts: &[
        ID,
        ("name", ColumnSource::Field),
        ("slug", ColumnSource::Field),
        ("image_url", ColumnSource::Field),
        ("created_by", ColumnSource::Field),
    ],
    times: &[],
    belongs_to: &[],
    may_return: false,
};

static MEMBERSHIPS: Table = Table {
    name: "usher_memberships",
    object: "organization_membership",
    texts: &[
        ID,
        ("organization_id", ColumnSource::At(&["organization", "id"])),
        // Clerk's schema does not require this field; every example has it.
        ("user_id", ColumnSource::At(&["public_user_data", "user_id"])),
        ("role", ColumnSource::Field),
        ("role_name", ColumnSource::Field),
    ],
    times: &[],
    belongs_to: &[("organization_id", TableKind::Organization), ("user_id", TableKind::User)],
    // It is not documented whether a person who joins again gets a new membership id.
    may_return: true,
};

static INVITATIONS: Table = Table {
    name: "usher_invitations",
    object: "organization_invitation",
    texts: &[
        ID,
        ("organization_id", ColumnSource::Field),
        ("email", ColumnSource::At(&["email_address"])),
        ("role", ColumnSource::Field),
        // `pending`, `accepted` or `revoked`. Clerk's schema requires neither this field nor `organization_id`.
        ("status", ColumnSource::Field),
        // The user who accepted the invitation.
        ("user_id", ColumnSource::Field),
        ("inviter_id", ColumnSource::Field),
    ],
    times: &["expires_at"],
    belongs_to: &[("organization_id", TableKind::Organization), ("user_id", TableKind::User)],
    may_return: false,
};
