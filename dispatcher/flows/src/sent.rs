//! JSON that was sent, as values of templates and expressions. It is parsed only as far as they access it.
//!
//! Metadata may always be absent, because the application writes it freely or not at all. Absent `public_metadata`,
//! `private_metadata` and `unsafe_metadata`, and everything absent below them, are therefore null. Everywhere else an
//! absent field is undefined, so that a misspelt name is noticed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use minijinja::Value as Rendered;
use minijinja::value::{Enumerator, Object, ObjectRepr};
use usher_proto::Json;
use usher_proto::json::{JsonKind, MAX_DEPTH};

/// The fields of Clerk's objects that the application writes.
pub(super) const METADATA: [&str; 3] = ["public_metadata", "private_metadata", "unsafe_metadata"];

/// A list or an object that was sent.
pub(super) struct SentJson {
    text: Box<str>,
    is_list: bool,
    in_metadata: bool,
    /// Number of levels below this one that are parsed. Deeper values are represented by their text, because
    /// the engine recurses.
    levels: usize,
    entries: OnceLock<Entries>,
}

enum Entries {
    List(Vec<Rendered>),
    Object(BTreeMap<String, Rendered>),
}

impl SentJson {
    /// Returns the value in the form that expressions use.
    pub(super) fn value(json: Json<'_>) -> Rendered {
        of(json, false, MAX_DEPTH)
    }

    /// Returns the JSON that was sent.
    pub(super) fn json(&self) -> Option<Json<'_>> {
        Json::read(&self.text)
    }

    fn entries(&self) -> &Entries {
        self.entries.get_or_init(|| {
            let within = |name: &str| self.in_metadata || METADATA.contains(&name);
            // The text is valid, because it was validated with the whole document.
            match self.json() {
                Some(json) if self.is_list => {
                    Entries::List(json.items().map(|item| of(item, self.in_metadata, self.levels - 1)).collect())
                }
                json => {
                    let members = json.into_iter().flat_map(Json::members);
                    let value = |json: Json<'_>, name: &str| of(json, within(name), self.levels - 1);
                    Entries::Object(members.map(|(name, json)| (name.to_string(), value(json, &name))).collect())
                }
            }
        })
    }
}

fn of(json: Json<'_>, in_metadata: bool, levels: usize) -> Rendered {
    match json.kind() {
        JsonKind::Null => Rendered::from(()),
        JsonKind::Bool => Rendered::from(json.is_true()),
        JsonKind::Text => Rendered::from(json.text().unwrap_or_default().into_owned()),
        JsonKind::Number => number(json.as_str()),
        JsonKind::List | JsonKind::Object if levels == 0 => Rendered::from(json.well_formed().into_owned()),
        kind => Rendered::from_object(SentJson {
            text: json.as_str().into(),
            is_list: kind == JsonKind::List,
            in_metadata,
            levels,
            entries: OnceLock::new(),
        }),
    }
}

/// Returns a number for calculations. A number outside the range of a double becomes infinite and compares accordingly.
fn number(digits: &str) -> Rendered {
    match digits.parse::<i128>() {
        Ok(whole) => i64::try_from(whole).map_or_else(|_| Rendered::from(whole), Rendered::from),
        Err(_) => Rendered::from(digits.parse::<f64>().unwrap_or(f64::NAN)),
    }
}

impl Object for SentJson {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if self.is_list { ObjectRepr::Seq } else { ObjectRepr::Map }
    }

    fn get_value(self: &Arc<Self>, key: &Rendered) -> Option<Rendered> {
        match self.entries() {
            Entries::List(items) => items.get(key.as_usize()?).cloned(),
            Entries::Object(members) => {
                let name = key.as_str()?;
                let null = || (self.in_metadata || METADATA.contains(&name)).then(|| Rendered::from(()));
                members.get(name).cloned().or_else(null)
            }
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.entries() {
            Entries::List(items) => Enumerator::Values(items.clone()),
            Entries::Object(members) => {
                Enumerator::Values(members.keys().map(|name| Rendered::from(name.as_str())).collect())
            }
        }
    }
}

/// Prints only the length, because the text may contain personal data.
impl fmt::Debug for SentJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SentJson({} bytes)", self.text.len())
    }
}

/// A number that is only printed, with the digits that were sent.
#[derive(Debug)]
pub(super) struct Digits(pub(super) Box<str>);

impl Object for Digits {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
