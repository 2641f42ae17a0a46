//! JSON text that is read without building a tree. A value that is not read cannot cause an error, and a value that is
//! passed on keeps its bytes.
//!
//! Every text that the JSON grammar allows (RFC 8259) is accepted, at any depth. That includes numbers outside the
//! range of a double, and escapes of unpaired surrogates, which `JSON.parse` accepts too (section 8.2). Of members with
//! the same name the last one counts, as in `JSON.parse`. Nothing here recurses with the depth of the text, except
//! functions that limit the depth.

mod number;
mod scan;
mod shared;
mod write;

use std::borrow::Cow;
use std::fmt;

pub use number::{Whole, whole_number};
use serde_json::Value;
pub use shared::SharedJson;

/// Number of levels that [`Json::to_value`] builds. `serde_json` parses up to 128 levels, and the stack is finite.
pub const MAX_DEPTH: usize = 100;

/// One value of a JSON text that was checked as a whole. It has the length that was sent and may contain personal data.
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
    /// A string.
    Text,
    /// An array.
    List,
    /// An object.
    Object,
}

impl<'a> Json<'a> {
    /// An object without members, `{}`.
    pub const EMPTY: Self = Self("{}");

    /// Parses a text. `None` if the text is not valid JSON.
    pub fn read(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let start = scan::space(bytes, 0);
        let end = scan::value_end(bytes, start)?;
        (scan::space(bytes, end) == bytes.len()).then(|| Self(&text[start..end]))
    }

    /// The JSON text of the value, byte for byte.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The type of the value.
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

    /// True if the value is `null`.
    pub fn is_null(self) -> bool {
        self.kind() == JsonKind::Null
    }

    /// True if the value is an object.
    pub fn is_object(self) -> bool {
        self.kind() == JsonKind::Object
    }

    /// True if the value is `true`.
    pub fn is_true(self) -> bool {
        self.0 == "true"
    }

    /// Returns the content of a string, with its escapes resolved. `None` for any other type. An unpaired
    /// surrogate becomes U+FFFD.
    pub fn text(self) -> Option<Cow<'a, str>> {
        (self.kind() == JsonKind::Text).then(|| scan::decoded(&self.0[1..self.0.len() - 1]))
    }

    /// Returns the content of a string that is not empty. Clerk's billing objects contain `""` where
    /// others contain `null`.
    pub fn filled(self) -> Option<Cow<'a, str>> {
        self.text().filter(|text| !text.is_empty())
    }

    /// Returns the text of a number as it was sent. `None` for any other type.
    pub fn number(self) -> Option<&'a str> {
        (self.kind() == JsonKind::Number).then_some(self.0)
    }

    /// Returns the integer that a number or the text of a string denotes. `None` if there is none.
    pub fn whole(self) -> Option<Whole> {
        match self.kind() {
            JsonKind::Number => whole_number(self.0),
            JsonKind::Text => whole_number(self.text()?.trim()),
            JsonKind::Null | JsonKind::Bool | JsonKind::List | JsonKind::Object => None,
        }
    }

    /// Returns a point in time in milliseconds since 1970. The value is a number of milliseconds, the text of such a
    /// number, or an RFC 3339 time. `None` if it is none of these, or a time that RFC 3339 cannot express.
    pub fn millis(self) -> Option<Whole> {
        let is_time = |millis: i64| jiff::Timestamp::from_millisecond(millis).is_ok();
        if let Some(whole) = self.whole() {
            return Some(whole).filter(|whole| is_time(whole.value));
        }
        let time: jiff::Timestamp = self.text()?.trim().parse().ok()?;
        let value = time.as_millisecond();
        Some(Whole { value, is_exact: time.as_nanosecond() == i128::from(value) * 1_000_000 })
    }

    /// Returns the member of this name. `None` if it is absent or this is not an object.
    pub fn get(self, name: &str) -> Option<Json<'a>> {
        self.members().filter(|(known, _)| known == name).last().map(|(_, value)| value)
    }

    /// Returns the value at a path of member names, from the outermost to the innermost.
    pub fn at(self, path: &[&str]) -> Option<Json<'a>> {
        path.iter().try_fold(self, |value, name| value.get(name))
    }

    /// Iterates over the members of an object in their order, including repeated names. Other types have no members.
    pub fn members(self) -> Members<'a> {
        Members(scan::Entries::of(self.0, b'{'))
    }

    /// Iterates over the values of an array. Other types have no values.
    pub fn items(self) -> Items<'a> {
        Items(scan::Entries::of(self.0, b'['))
    }

    /// Returns the members of these names, in one pass over the object. A name that is absent, as every name is if this is not
    /// an object, has the value `None`. Returns `None` if one of the names occurs more than once.
    pub fn unique<const N: usize>(self, names: [&str; N]) -> Option<[Option<Json<'a>>; N]> {
        let mut found = [None; N];
        for (name, value) in self.members() {
            if let Some(place) = names.iter().position(|known| *known == name)
                && found[place].replace(value).is_some()
            {
                return None;
            }
        }
        Some(found)
    }

    /// Returns the JSON text with every escape of an unpaired surrogate replaced by the escape of U+FFFD, because
    /// strict parsers reject unpaired surrogates.
    pub fn well_formed(self) -> Cow<'a, str> {
        write::replaced(self.0, |unit| (0xd800..=0xdfff).contains(&unit))
    }

    /// Returns the text of [`Json::well_formed`] without NUL, which Postgres accepts in JSON and which then fails every
    /// query that reads it. Values nested deeper than `max_depth` become strings, which every database can read.
    pub fn storable(self, max_depth: usize) -> Cow<'a, str> {
        let replaced = write::replaced(self.0, |unit| unit == 0 || (0xd800..=0xdfff).contains(&unit));
        match write::flattened(&replaced, max_depth) {
            None => replaced,
            Some(flat) => Cow::Owned(flat),
        }
    }

    /// Builds a tree of the value. A number that `serde_json` cannot represent (outside 64 bits and a double) and
    /// values nested deeper than [`MAX_DEPTH`] become strings that hold the text that was sent.
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

/// Bodies are personal data, so only the type and the length are printed.
impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({:?}, {} bytes)", self.kind(), self.0.len())
    }
}

/// Iterator over the members of an object.
#[derive(Debug, Clone)]
pub struct Members<'a>(scan::Entries<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (scan::decoded(name), Json(value)))
    }
}

/// Iterator over the values of an array.
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
