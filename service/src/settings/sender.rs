//! The settings of senders by name: `USHER_SOURCE_<NAME>_SECRET`, `_KEY`, `_SUBJECT` and `_TYPE`.

use usher_proto::source::{InvalidSenderName, SENDER_SETTINGS};
use usher_proto::{Instance, SenderName};

/// The word between a sender's name and an instance. No name of a sender has it as a part, so that every setting belongs
/// to one sender only.
const SECRET: &str = "SECRET";

/// A setting of a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderSetting {
    /// The sender.
    pub sender: SenderName,
    /// The detail of the sender that the setting gives.
    pub what: SenderDetail,
}

/// A detail of a sender that a setting gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderDetail {
    /// The signing secrets of this instance.
    Secret(Instance),
    /// The place of the key in a body.
    Key,
    /// The source that issued the keys.
    Subject,
    /// The place of the type in a body.
    Kind,
}

/// The variable begins as the settings of senders do, and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSenderSetting {
    /// No setting of a sender ends so.
    #[error("a sender's settings are USHER_SOURCE_<NAME>_SECRET, ..._KEY, ..._SUBJECT and ..._TYPE")]
    Unknown,
    /// The name of the sender is invalid.
    #[error(transparent)]
    Name(#[from] InvalidSenderName),
    /// The name of the instance is invalid.
    #[error(transparent)]
    Instance(#[from] usher_proto::instance::InvalidInstance),
}

impl SenderSetting {
    /// Parses the name of a variable.
    ///
    /// # Errors
    ///
    /// The variable is no setting of a sender.
    pub fn parse(variable: &str) -> Result<Self, InvalidSenderSetting> {
        let words: Vec<&str> = variable
            .strip_prefix(SENDER_SETTINGS)
            .filter(|rest| !rest.contains(|c: char| c.is_ascii_lowercase()))
            .ok_or(InvalidSenderSetting::Unknown)?
            .split('_')
            .collect();
        let name = |words: &[&str]| words.join("-").to_ascii_lowercase();
        if let Some(at) = words.iter().position(|word| *word == SECRET) {
            let sender = name(&words[..at]).parse()?;
            let instance = if at + 1 == words.len() { Instance::default() } else { name(&words[at + 1..]).parse()? };
            return Ok(Self { sender, what: SenderDetail::Secret(instance) });
        }
        let (last, words) = words.split_last().ok_or(InvalidSenderSetting::Unknown)?;
        let what = match *last {
            "KEY" => SenderDetail::Key,
            "SUBJECT" => SenderDetail::Subject,
            "TYPE" => SenderDetail::Kind,
            _ => return Err(InvalidSenderSetting::Unknown),
        };
        Ok(Self { sender: name(words).parse()?, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_names_one_sender() {
        let read = |name: &str| {
            let setting = SenderSetting::parse(&format!("USHER_SOURCE_{name}"))?;
            let what = match setting.what {
                SenderDetail::Secret(instance) => format!("secret of {instance}"),
                other => format!("{other:?}").to_lowercase(),
            };
            Ok(format!("{}: {what}", setting.sender))
        };
        for (name, meaning) in [
            ("ACME_SECRET", "acme: secret of default"),
            ("ACME_PAY_SECRET_STAGING_EU", "acme-pay: secret of staging-eu"),
            ("ACME_KEY", "acme: key"),
            ("ACME_KEY_SECRET", "acme-key: secret of default"),
            ("ACME_SECRET_KEY", "acme: secret of key"),
            ("ACME_SUBJECT", "acme: subject"),
            ("A1_TYPE", "a1: kind"),
        ] {
            assert_eq!(read(name).as_deref(), Ok(meaning), "{name}");
        }
        for (name, error) in [
            ("ACME", InvalidSenderSetting::Unknown),
            ("ACME_TOKEN", InvalidSenderSetting::Unknown),
            ("acme_KEY", InvalidSenderSetting::Unknown),
            ("KEY", InvalidSenderSetting::Name(InvalidSenderName::Malformed)),
            ("SECRET", InvalidSenderSetting::Name(InvalidSenderName::Malformed)),
            ("CLERK_SECRET", InvalidSenderSetting::Name(InvalidSenderName::Taken)),
            ("STRIP_KEY", InvalidSenderSetting::Name(InvalidSenderName::Taken)),
        ] {
            assert_eq!(read(name), Err(error), "{name}");
        }
        for what in ["SECRET", "KEY", "SUBJECT", "TYPE"] {
            let sender: SenderName = "acme-pay".parse().expect("a name");
            assert_eq!(SenderSetting::parse(&sender.setting(what)).map(|it| it.sender), Ok(sender));
        }
    }
}
