//! JSON that was sent, as values of templates and expressions. It is parsed only as far as they access it.
//!
//! Metadata may always be absent, because the application writes it freely or not at all. Absent `public_metadata`,
//! `private_metadata` and `unsafe_metadata`, and everything absent below them, are therefore null. Everywhere else an
//! absent field is undefined, so that a misspelt name is noticed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use minijinja::Value as Rendered;
use minijinja::value::{Enumerator, Object, ObjectRepr};
use serde_json::Value;
use usher_proto::Json;
use usher_proto::json::{JsonKind, MAX_DEPTH, SharedJson};

/// The fields of Clerk's objects that the application writes.
pub(super) const METADATA: [&str; 3] = ["public_metadata", "private_metadata", "unsafe_metadata"];

/// A list or an object that was sent.
pub(super) struct SentJson {
    json: SharedJson,
    is_list: bool,
    in_metadata: bool,
    /// Number of levels below this one that are parsed. Deeper values are represented by their text, because
    /// the engine recurses.
    levels: usize,
    derived: Option<Derived>,
}

/// Texts that are read from an object and stand beside its members, in place of any of the same names.
pub(super) struct Derived {
    pub(super) names: &'static [&'static str],
    /// Reads one of them from the object; null if there is none.
    pub(super) read: fn(Json<'_>, &str) -> Option<String>,
    /// The object with all of them. Most expressions use single members only.
    pub(super) whole: OnceLock<SharedJson>,
}

impl SentJson {
    /// Returns the value in the form that expressions use.
    pub(super) fn value(json: &SharedJson) -> Rendered {
        of(json, json.json(), false, MAX_DEPTH)
    }

    /// Returns an object with derived texts.
    pub(super) fn with_derived(object: SharedJson, derived: Derived) -> Rendered {
        let derived = Some(derived);
        Rendered::from_object(Self { json: object, is_list: false, in_metadata: false, levels: MAX_DEPTH, derived })
    }

    /// Returns the JSON that was sent, and what is derived from it.
    pub(super) fn json(&self) -> Json<'_> {
        let Some(Derived { names, read, whole }) = &self.derived else { return self.json.json() };
        let whole = whole.get_or_init(|| {
            let object = self.json.json();
            let own = object.members().filter(|(name, _)| !names.contains(&&**name));
            let own = own.map(|(name, value)| (name.into_owned(), value.as_str().to_owned()));
            let derived = names.iter().map(|name| ((*name).to_owned(), Value::from(read(object, name)).to_string()));
            SharedJson::object(own.chain(derived))
        });
        whole.json()
    }

    fn inner(&self, json: Json<'_>, in_metadata: bool) -> Rendered {
        of(&self.json, json, self.in_metadata || in_metadata, self.levels - 1)
    }
}

/// Returns a value of `whole`.
fn of(whole: &SharedJson, json: Json<'_>, in_metadata: bool, levels: usize) -> Rendered {
    match json.kind() {
        JsonKind::Null => Rendered::from(()),
        JsonKind::Bool => Rendered::from(json.is_true()),
        JsonKind::Text => Rendered::from(json.text().unwrap_or_default().into_owned()),
        JsonKind::Number => number(json.as_str()),
        JsonKind::List | JsonKind::Object if levels == 0 => Rendered::from(json.well_formed().into_owned()),
        kind => Rendered::from_object(SentJson {
            json: whole.part(json),
            is_list: kind == JsonKind::List,
            in_metadata,
            levels,
            derived: None,
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
        if self.is_list {
            return self.json().items().nth(key.as_usize()?).map(|item| self.inner(item, false));
        }
        let name = key.as_str()?;
        if let Some(derived) = self.derived.as_ref().filter(|derived| derived.names.contains(&name)) {
            return Some((derived.read)(self.json.json(), name).map_or_else(|| Rendered::from(()), Rendered::from));
        }
        let is_metadata = METADATA.contains(&name);
        let null = || (self.in_metadata || is_metadata).then(|| Rendered::from(()));
        self.json.json().get(name).map(|value| self.inner(value, is_metadata)).or_else(null)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        if self.is_list {
            return Enumerator::Values(self.json().items().map(|item| self.inner(item, false)).collect());
        }
        let names: BTreeSet<_> = self.json().members().map(|(name, _)| name).collect();
        Enumerator::Values(names.into_iter().map(|name| Rendered::from(&*name)).collect())
    }
}

/// Prints only the length, because the text may contain personal data.
impl fmt::Debug for SentJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SentJson({} bytes)", self.json().as_str().len())
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
