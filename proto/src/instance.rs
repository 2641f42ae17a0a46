//! The instances of a sender, such as production and staging of one product. Each has its own signing secret.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest instance name, in bytes.
const MAX_NAME: usize = 64;

/// The name of one instance of a sender: 1 to 64 characters of `a-z`, `0-9` and `-`. It is used in paths, headers and
/// tables, and, in upper case with `_` for `-`, as the suffix of environment variables.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(Arc<str>);

/// The text is not a valid instance name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an instance has a name of 1 to {MAX_NAME} of the characters a-z, 0-9 and '-'")]
pub struct InvalidInstance;

impl Instance {
    /// Instance name of a sender that has only one instance.
    pub const DEFAULT: &'static str = "default";

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if this is the default instance, whose environment variables have no suffix.
    pub fn is_default(&self) -> bool {
        &*self.0 == Self::DEFAULT
    }
}

impl Default for Instance {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl FromStr for Instance {
    type Err = InvalidInstance;

    fn from_str(name: &str) -> Result<Self, InvalidInstance> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let valid = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(allowed);
        if valid { Ok(Self(name.into())) } else { Err(InvalidInstance) }
    }
}

// Equality and order are those of the text, so a set of instances can be queried with a `&str`.
impl Borrow<str> for Instance {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_paths_headers_tables_and_variables() {
        for good in ["default", "staging", "pre-view-2", &"a".repeat(64)] {
            assert_eq!(good.parse::<Instance>().map(|instance| instance.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "Staging", "a/b", "a b", "a\0", "a_b", "ä", &"a".repeat(65)] {
            assert_eq!(bad.parse::<Instance>(), Err(InvalidInstance), "{bad:?}");
        }
        assert!(Instance::default().is_default());
    }
}
