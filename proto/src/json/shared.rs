use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::Json;

/// A value of a JSON text that is kept as long as any of its values.
#[derive(Clone)]
pub struct SharedJson {
    document: Arc<str>,
    range: Range<usize>,
}

impl SharedJson {
    /// Returns a copy of a value.
    pub fn of(json: Json<'_>) -> Self {
        Self { document: json.as_str().into(), range: 0..json.as_str().len() }
    }

    /// Returns an object with these members, given as name and JSON text.
    pub fn object(members: impl Iterator<Item = (String, String)>) -> Self {
        let mut text = String::from("{");
        for (name, value) in members {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&serde_json::Value::from(name).to_string());
            text.push(':');
            text.push_str(&value);
        }
        text.push('}');
        Self { range: 0..text.len(), document: text.into() }
    }

    /// Returns the value.
    pub fn json(&self) -> Json<'_> {
        Json(&self.document[self.range.clone()])
    }

    /// Returns a value that [`Self::json`] contains. It shares the text; any other value is copied.
    pub fn part(&self, part: Json<'_>) -> Self {
        let text = part.as_str();
        let start = text.as_ptr().addr().checked_sub(self.document.as_ptr().addr());
        let range = start.map(|start| start..start + text.len()).filter(|range| range.end <= self.document.len());
        range.map_or_else(|| Self::of(part), |range| Self { document: self.document.clone(), range })
    }
}

/// Prints only type and length, as for [`Json`].
impl fmt::Debug for SharedJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.json().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_shares_the_text_and_a_strange_value_is_copied() {
        let whole = SharedJson::of(Json::read(r#"{"a":{"b":[1,2]},"c":"x"}"#).expect("JSON"));
        let inner = whole.part(whole.json().get("a").expect("a"));
        let list = inner.part(inner.json().get("b").expect("b"));
        assert_eq!((inner.json().as_str(), list.json().as_str()), (r#"{"b":[1,2]}"#, "[1,2]"));
        assert!(Arc::ptr_eq(&whole.document, &list.document));
        let strange = whole.part(Json::read("[true]").expect("JSON"));
        assert_eq!(strange.json().as_str(), "[true]");
        assert!(!Arc::ptr_eq(&whole.document, &strange.document));
    }
}
