//! Makes values fit their destination before a connector receives them: descriptive texts are folded into one line and
//! cut, identifiers are accepted unchanged or refused. [`limits`](super::limits) holds the limits. Pure.

use std::borrow::Cow;

use serde_json::{Map, Value};
use usher_proto::address::{NotAnAddress, one_line};
use usher_proto::{Mailbox, Reason};

use super::limits::{ValueLimit, limit};
use super::{is_template, operation};

/// Limits of a text, and the treatment of a text that exceeds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextLimit {
    /// Treatment of control characters and line ends.
    pub(super) on_control_chars: OnControlChars,
    /// Treatment of a text that is too long.
    pub(super) on_too_long: OnTooLong,
    /// Largest length.
    pub(super) max_length: MaxLength,
    /// Allowed characters.
    pub(super) alphabet: Alphabet,
}

/// Treatment of control characters and line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnControlChars {
    /// They stay.
    Keep,
    /// Each becomes a space.
    Fold,
    /// The value is refused.
    Refuse,
}

/// Treatment of a text that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnTooLong {
    /// It is cut.
    Cut,
    /// It is refused.
    Refuse,
}

/// Largest length of a text, in the provider's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MaxLength {
    /// In characters.
    Characters(usize),
    /// In octets of UTF-8.
    Octets(usize),
    /// The provider documents no limit.
    Unknown,
}

/// Allowed characters of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// All.
    Any,
    /// ASCII letters, digits, `_` and `-`. In a text that may be cut, other characters become `_`.
    Label,
    /// ASCII letters, digits and `_`.
    Word,
    /// All except square brackets.
    NoBrackets,
    /// Printable ASCII except the colon.
    Header,
}

/// Largest display name of a mailbox, in octets. No provider documents a limit; this length, quoted and with its
/// address, fits a header line of a mail.
const DISPLAY_NAME: TextLimit = TextLimit {
    on_control_chars: OnControlChars::Fold,
    on_too_long: OnTooLong::Cut,
    max_length: MaxLength::Octets(256),
    alphabet: Alphabet::Any,
};

/// A value that the destination does not accept and that must not be changed. Names the parameter, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Unfit {
    /// True if the value is an address.
    pub is_address: bool,
    /// The parameter, and the reason why its value does not fit.
    pub what: String,
}

impl Unfit {
    fn new(what: String) -> Self {
        Self { is_address: false, what }
    }

    /// Returns the reason of a dead letter with such a value.
    pub const fn reason(&self) -> Reason {
        if self.is_address { Reason::InvalidAddress } else { Reason::InvalidRequest }
    }
}

impl MaxLength {
    /// Returns the limit in words, for error messages.
    fn describe(self) -> String {
        match self {
            Self::Characters(most) => format!("{most} characters"),
            Self::Octets(most) => format!("{most} octets"),
            Self::Unknown => "no limit".to_owned(),
        }
    }

    /// Returns the longest prefix of a text within the limit.
    fn cut(self, text: &str) -> &str {
        let end = match self {
            Self::Characters(most) => text.char_indices().nth(most).map_or(text.len(), |(at, _)| at),
            Self::Octets(most) => text.floor_char_boundary(most),
            Self::Unknown => text.len(),
        };
        &text[..end]
    }
}

impl Alphabet {
    fn has(self, c: char) -> bool {
        match self {
            Self::Any => true,
            Self::Label => c.is_ascii_alphanumeric() || matches!(c, '_' | '-'),
            Self::Word => c.is_ascii_alphanumeric() || c == '_',
            Self::NoBrackets => !matches!(c, '[' | ']'),
            Self::Header => c.is_ascii_graphic() && c != ':',
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::Any => "any characters",
            Self::Label => "ASCII letters, digits, _ and - only",
            Self::Word => "ASCII letters, digits and _ only",
            Self::NoBrackets => "no square brackets",
            Self::Header => "printable ASCII but the colon only",
        }
    }
}

impl TextLimit {
    /// Returns the same limit with refusal instead of cutting. `on_control_chars` stays as it is.
    const fn as_it_is(self) -> Self {
        Self { on_too_long: OnTooLong::Refuse, ..self }
    }

    /// Returns the text, changed to fit, or an error that names `place`.
    fn fit(self, place: &str, text: &str) -> Result<String, Unfit> {
        let folded = one_line(text);
        let text = match self.on_control_chars {
            OnControlChars::Keep => Cow::Borrowed(text),
            OnControlChars::Refuse if folded != text => {
                return Err(Unfit::new(format!("{place} has a line end or another control character in it")));
            }
            OnControlChars::Fold | OnControlChars::Refuse => Cow::Owned(folded),
        };
        let text = if text.chars().all(|c| self.alphabet.has(c)) {
            text
        } else if self.on_too_long == OnTooLong::Cut {
            Cow::Owned(text.chars().map(|c| if self.alphabet.has(c) { c } else { '_' }).collect())
        } else {
            return Err(Unfit::new(format!("{place} may have {}", self.alphabet.describe())));
        };
        let cut = self.max_length.cut(&text);
        if cut.len() < text.len() && self.on_too_long == OnTooLong::Refuse {
            return Err(Unfit::new(format!("{place} is longer than {}", self.max_length.describe())));
        }
        Ok(cut.to_owned())
    }
}

/// Makes a step's rendered parameters fit the destination's limits. A value that already fits is not changed.
///
/// # Errors
///
/// A value does not fit and must not be changed: an id, an address, a key.
pub fn fit(connector: &str, operation: &str, params: &mut Map<String, Value>) -> Result<(), Unfit> {
    for (name, value) in params {
        if let Some(limit) = limit(connector, operation, name) {
            fit_value(limit, name, value, Mode::Rendered)?;
        }
    }
    Ok(())
}

/// Checks a value from a flow file against the destination's limits, as far as the value is the same for every event.
///
/// # Errors
///
/// The value does not fit. A text that would be cut at run time is an error here, because the author can shorten it.
pub fn check(connector: &str, operation: &str, param: &str, value: &Value) -> Result<(), Unfit> {
    let Some(limit) = limit(connector, operation, param) else { return Ok(()) };
    fit_value(limit, param, &mut value.clone(), Mode::Written)
}

/// Returns the names of an operation's parameters that are phone numbers.
pub fn phones(connector: &str, name: &str) -> Vec<&'static str> {
    let params = operation(connector, name).map_or(&[][..], |operation| operation.params);
    let is_phone = |param: &str| matches!(limit(connector, name, param), Some(ValueLimit::Phone(_)));
    params.iter().map(|param| param.name).filter(|param| is_phone(param)).collect()
}

/// Origin of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// From an event.
    Rendered,
    /// From a flow file: templates are not checked, and nothing is cut.
    Written,
}

fn fit_value(limit: ValueLimit, place: &str, value: &mut Value, mode: Mode) -> Result<(), Unfit> {
    match limit {
        ValueLimit::Any => Ok(()),
        ValueLimit::Text(text) | ValueLimit::Phone(text) => {
            each(value, mode, &|value| text_value(text, place, value, mode))
        }
        ValueLimit::Mailboxes { most, address, smtp } => {
            if value.as_array().is_some_and(|list| list.len() > most) {
                return Err(Unfit::new(format!("{place} has more than {most} addresses")));
            }
            each(value, mode, &|value| mailbox(address, smtp, place, value, mode))
        }
        ValueLimit::Number(from, to) => match value.as_u64() {
            Some(number) if !(from..=to).contains(&number) => {
                Err(Unfit::new(format!("{place} is a number from {from} to {to}")))
            }
            Some(_) | None => Ok(()),
        },
        ValueLimit::Pairs { most, name, ours, value: text, identity } => {
            let Some(pairs) = value.as_object_mut() else { return Ok(()) };
            if pairs.len() > most {
                return Err(Unfit::new(format!("{place} has more than {most} pairs")));
            }
            for (key, value) in pairs {
                if ours == Some(key.as_str()) {
                    return Err(Unfit::new(format!("{place}.{key} is Usher's own: choose another name")));
                }
                if key.is_empty() {
                    return Err(Unfit::new(format!("{place} has a name without a letter")));
                }
                name.as_it_is().fit(&format!("the name {key:?} in {place}"), key)?;
                let text = if identity == Some(key.as_str()) { text.as_it_is() } else { text };
                each(value, mode, &|value| text_value(text, &format!("{place}.{key}"), value, mode))?;
            }
            Ok(())
        }
    }
}

/// Applies `fit` to every text in a value, except templates in a flow file.
fn each(value: &mut Value, mode: Mode, fit: &dyn Fn(&mut Value) -> Result<(), Unfit>) -> Result<(), Unfit> {
    match value {
        Value::String(text) if mode == Mode::Written && is_template(text) => Ok(()),
        Value::String(_) => fit(value),
        Value::Array(list) => list.iter_mut().try_for_each(|item| each(item, mode, fit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Ok(()),
    }
}

fn text_value(text: TextLimit, place: &str, value: &mut Value, mode: Mode) -> Result<(), Unfit> {
    let text = if mode == Mode::Written { text.as_it_is() } else { text };
    let fitted = text.fit(place, value.as_str().unwrap_or_default())?;
    *value = Value::String(fitted);
    Ok(())
}

fn mailbox(address: TextLimit, smtp: bool, place: &str, value: &mut Value, mode: Mode) -> Result<(), Unfit> {
    let wrong = |what: String| Unfit { is_address: true, what };
    let none = |error: NotAnAddress| wrong(format!("{place} is {error}"));
    let text = value.as_str().unwrap_or_default();
    // A display name comes from a person and is folded. Addresses and texts from a flow file are not.
    let text = match text.rsplit_once('<') {
        Some((name, address)) if mode == Mode::Rendered => format!("{}<{address}", one_line(name)),
        Some(_) | None => text.to_owned(),
    };
    let read: Mailbox = text.parse().map_err(none)?;
    let mut read = read.with_ascii_domain().map_err(none)?;
    if smtp {
        read = read.with_smtp_local_part();
        if read.address.parse::<lettre::Address>().is_err() {
            return Err(wrong(format!("{place} is an address that SMTP does not have")));
        }
    }
    address.fit(&format!("the address in {place}"), &read.address).map_err(|unfit| wrong(unfit.what))?;
    let name = if mode == Mode::Written { DISPLAY_NAME.as_it_is() } else { DISPLAY_NAME };
    read.name = name.fit(&format!("the name in {place}"), &read.name)?.trim().to_owned();
    *value = Value::String(read.to_text());
    Ok(())
}

#[cfg(test)]
mod tests;
