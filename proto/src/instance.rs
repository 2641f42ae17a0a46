//! The instances of a sender: production and staging of one product, say, each with a signing secret of its own.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name, in bytes.
const MAX_NAME: usize = 64;

/// The name of one of a sender's instances: 1 to 64 of `a-z`, `0-9` and `-`. It stands in paths, headers, tables and,
/// in upper case with `_` for `-`, at the end of variables' names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(Arc<str>);

/// The text is no instance's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an instance has a name of 1 to {MAX_NAME} of the characters a-z, 0-9 and '-'")]
pub struct InvalidInstance;

impl Instance {
    /// The name of the instance of a sender that has only one.
    pub const DEFAULT: &'static str = "default";

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for the instance whose variables have no suffix.
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

// Equal and ordered as its text is, so that a set of instances can be asked with a text.
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
