//! JSON as it was sent: a text that is looked into without building a tree, so that a value which nobody asks for
//! changes nothing, and one which is passed on keeps its bytes.
//!
//! Taken is every text that JSON's grammar allows (RFC 8259), at any depth: numbers beyond a double, and escapes of
//! half a surrogate pair, which `JSON.parse` takes, too (section 8.2). Of members with the same name the last counts,
//! as there. Nothing here recurses with the depth of the text, except where a depth is given.

mod number;
mod scan;
mod write;

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

pub use number::{Whole, whole_number};

/// Levels that [`Json::to_value`] builds: serde_json reads 128 levels back, and stacks are finite.
pub const MAX_DEPTH: usize = 100;

/// One value of a text that was checked as a whole. It is as long as it was sent, and may hold personal data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Json<'a>(&'a str);

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number, however large or exact.
    Number,
    /// A text.
    Text,
    /// A list.
    List,
    /// An object.
    Object,
}

impl<'a> Json<'a> {
    /// An object without members.
    pub const EMPTY: Self = Self("{}");

    /// The value that a text holds; none where the text is no JSON.
    pub fn read(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let start = scan::space(bytes, 0);
        let end = scan::value_end(bytes, start)?;
        (scan::space(bytes, end) == bytes.len()).then(|| Self(&text[start..end]))
    }

    /// Its text, byte for byte.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Its type.
    pub fn kind(self) -> JsonKind {
        match self.0.as_bytes().first() {
            Some(b'{') => JsonKind::Object,
            Some(b'[') => JsonKind::List,
            Some(b'"') => JsonKind::Text,
            Some(b't' | b'f') => JsonKind::Bool,
            Some(b'n') | None => JsonKind::Null,
            Some(_) => JsonKind::Number,
        }
    }

    /// True if it is null.
    pub fn is_null(self) -> bool {
        self.kind() == JsonKind::Null
    }

    /// True if it is an object.
    pub fn is_object(self) -> bool {
        self.kind() == JsonKind::Object
    }

    /// True if it is `true`.
    pub fn is_true(self) -> bool {
        self.0 == "true"
    }

    /// The text that it is, where it is one. Half a surrogate pair becomes U+FFFD.
    pub fn text(self) -> Option<Cow<'a, str>> {
        (self.kind() == JsonKind::Text).then(|| scan::decoded(&self.0[1..self.0.len() - 1]))
    }

    /// The text that it is, where that is one with something in it. Clerk's billing objects hold `""` where others hold
    /// null.
    pub fn filled(self) -> Option<Cow<'a, str>> {
        self.text().filter(|text| !text.is_empty())
    }

    /// The digits that it is, where it is a number.
    pub fn number(self) -> Option<&'a str> {
        (self.kind() == JsonKind::Number).then_some(self.0)
    }

    /// The whole number that it is, or that the text in it is.
    pub fn whole(self) -> Option<Whole> {
        match self.kind() {
            JsonKind::Number => whole_number(self.0),
            JsonKind::Text => whole_number(self.text()?.trim()),
            JsonKind::Null | JsonKind::Bool | JsonKind::List | JsonKind::Object => None,
        }
    }

    /// The point in time that it is: milliseconds since 1970 as a number, or as the text of one, or RFC 3339. None
    /// where no time in RFC 3339 is meant.
    pub fn millis(self) -> Option<Whole> {
        let is_time = |millis: i64| jiff::Timestamp::from_millisecond(millis).is_ok();
        if let Some(whole) = self.whole() {
            return Some(whole).filter(|whole| is_time(whole.value));
        }
        let time: jiff::Timestamp = self.text()?.trim().parse().ok()?;
        let value = time.as_millisecond();
        Some(Whole { value, is_exact: time.as_nanosecond() == i128::from(value) * 1_000_000 })
    }

    /// The member of this name; none where it is absent, or this is no object.
    pub fn get(self, name: &str) -> Option<Json<'a>> {
        self.members().filter(|(known, _)| known == name).last().map(|(_, value)| value)
    }

    /// The value behind these names, one inside the other.
    pub fn at(self, path: &[&str]) -> Option<Json<'a>> {
        path.iter().try_fold(self, |value, name| value.get(name))
    }

    /// The members of an object in their order, each as often as it was sent; nothing else has any.
    pub fn members(self) -> Members<'a> {
        Members(scan::Entries::of(self.0, b'{'))
    }

    /// The values in a list; nothing else has any.
    pub fn items(self) -> Items<'a> {
        Items(scan::Entries::of(self.0, b'['))
    }

    /// True if a member of one of these names comes more than once.
    pub fn repeats(self, names: &[&str]) -> bool {
        names.iter().any(|name| self.members().filter(|(known, _)| known == name).count() > 1)
    }

    /// Its text with every escape of half a surrogate pair replaced by that of U+FFFD, as strict readers want it.
    pub fn well_formed(self) -> Cow<'a, str> {
        write::replaced(self.0, |unit| (0xd800..=0xdfff).contains(&unit))
    }

    /// The same without NUL, which Postgres keeps in JSON and then fails every query that meets it; and with what is
    /// nested deeper than `max_depth` as a text, which every database can read.
    pub fn storable(self, max_depth: usize) -> Cow<'a, str> {
        let replaced = write::replaced(self.0, |unit| unit == 0 || (0xd800..=0xdfff).contains(&unit));
        match write::flattened(&replaced, max_depth) {
            None => replaced,
            Some(flat) => Cow::Owned(flat),
        }
    }

    /// The value as a tree. A number that is none of serde_json's (beyond 64 bits and a double) and what is nested
    /// deeper than [`MAX_DEPTH`] stand in it as the text that was sent.
    pub fn to_value(self) -> Value {
        self.to_value_within(MAX_DEPTH)
    }

    fn to_value_within(self, depth: usize) -> Value {
        match self.kind() {
            JsonKind::Null => Value::Null,
            JsonKind::Bool => Value::Bool(self.is_true()),
            JsonKind::Text => Value::String(self.text().unwrap_or_default().into_owned()),
            JsonKind::Number => number::to_value(self.0),
            JsonKind::List | JsonKind::Object if depth == 0 => Value::String(self.0.to_owned()),
            JsonKind::List => self.items().map(|item| item.to_value_within(depth - 1)).collect(),
            JsonKind::Object => {
                self.members().map(|(name, value)| (name.into_owned(), value.to_value_within(depth - 1))).collect()
            }
        }
    }
}

/// Bodies are personal data: only what it is can be printed.
impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({:?}, {} bytes)", self.kind(), self.0.len())
    }
}

/// The members of an object.
#[derive(Debug, Clone)]
pub struct Members<'a>(scan::Entries<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (scan::decoded(name), Json(value)))
    }
}

/// The values in a list.
#[derive(Debug, Clone)]
pub struct Items<'a>(scan::Entries<'a>);

impl<'a> Iterator for Items<'a> {
    type Item = Json<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(_, value)| Json(value))
    }
}

#[cfg(test)]
mod tests;
