//! JSON: agreement with `serde_json`, and what the rewritten texts promise.

use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Map, Number, Value};
use usher_proto::Json;
use usher_proto::json::{JsonKind, MAX_DEPTH};

use crate::cases;
use crate::shape::{contains_nul, depth};

/// Any value that `serde_json` can hold.
fn value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Number::from),
        any::<u64>().prop_map(Number::from),
        any::<f64>().prop_filter_map("finite", Number::from_f64),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number.prop_map(Value::Number),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let members = vec(("[a-c\"\\\\é]{0,2}", inner.clone()), 0..6);
        prop_oneof![
            vec(inner, 0..6).prop_map(Value::Array),
            members.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A JSON string with escapes of every kind, among them NUL and unpaired surrogates.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<char>().prop_map(|c| {
            let quoted = Value::from(c.to_string()).to_string();
            quoted[1..quoted.len() - 1].to_owned()
        }),
        "\\\\u[dD][89aAcCfF][0-9a-fA-F]{2}",
        "\\\\uD[8B](00|FF)\\\\uD[CF](00|FF)",
        Just("\\u0000".to_owned()),
        Just("\\\\".to_owned()),
        "\\\\[\"/bfnrt]",
    ];
    vec(piece, 0..6).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// Any JSON text, also with repeated names, numbers beyond a double, and unpaired surrogates.
fn text() -> impl Strategy<Value = String> {
    let leaf =
        prop_oneof!["null|true|false", "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?", string(),];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let member = (prop_oneof![string(), Just("\"a\"".to_owned())], "[ \t\r\n]?", inner.clone());
        let members = vec(member.prop_map(|(name, space, value)| format!("{space}{name}{space}:{space}{value}")), 0..5);
        prop_oneof![
            vec(inner, 0..5).prop_map(|items| format!("[{}]", items.join(" , "))),
            members.prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

/// A text that may be JSON: pieces of it, or JSON with one byte replaced.
fn almost() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[\\[\\]{},:]",
        "null|tru|true|nulll",
        "-?0?[0-9]\\.?[0-9]?[eE]?[+-]?[0-9]?",
        "\"[^\"]?\"",
        "[ \t\n\u{a0}\u{b}]",
        string(),
    ];
    let broken = (text(), any::<prop::sample::Index>(), "[\\x00-\\x7f]").prop_map(|(text, at, with)| {
        let at = at.index(text.len());
        let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let rest = text[at..].chars().next().map_or(0, char::len_utf8);
        format!("{}{with}{}", &text[..at], &text[at + rest..])
    });
    let spaced = (text(), "[ \t\n\r\u{a0}\u{b}\u{c}]").prop_map(|(text, space)| format!("{space}{text}{space}"));
    prop_oneof![vec(piece, 0..8).prop_map(|pieces| pieces.concat()), broken, spaced, text()]
}

fn read(text: &str) -> Json<'_> {
    Json::read(text).unwrap_or_else(|| panic!("no JSON: {text}"))
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_value_that_was_written_reads_back(value in value(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.expect("a value can be written");
        prop_assert_eq!(read(&text).to_value(), value);
    }

    /// `IgnoredAny` checks the grammar only: neither the range of numbers nor the pairs of surrogates.
    #[test]
    fn exactly_the_texts_of_the_grammar_are_accepted(text in almost()) {
        let is_valid = serde_json::from_str::<IgnoredAny>(&text).is_ok();
        prop_assert_eq!(Json::read(&text).is_some(), is_valid, "{}", text);
    }

    #[test]
    fn what_serde_json_reads_has_the_same_meaning_here(text in almost()) {
        let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(()) };
        let json = read(&text);
        prop_assert_eq!(&json.to_value(), &value);
        let members = value.as_object().cloned().unwrap_or_else(Map::new);
        for (name, member) in &members {
            prop_assert_eq!(&json.get(name).map(Json::to_value), &Some(member.clone()));
        }
        prop_assert_eq!(json.items().map(Json::to_value).collect::<Vec<_>>(), value.as_array().cloned().unwrap_or_default());
        prop_assert!(members.contains_key("no such name") || json.get("no such name").is_none());
    }

    #[test]
    fn parts_of_a_text_are_texts_of_their_own(text in text()) {
        let json = read(&text);
        for part in json.items().chain(json.members().map(|(_, value)| value)) {
            prop_assert_eq!(Json::read(part.as_str()), Some(part));
        }
    }

    #[test]
    fn a_well_formed_text_has_the_same_meaning_and_no_unpaired_surrogate(text in text()) {
        let json = read(&text);
        let well_formed = json.well_formed();
        let again = read(&well_formed);
        prop_assert_eq!(again.to_value(), json.to_value());
        prop_assert_eq!(again.well_formed(), well_formed.as_ref());
        // A strict parser of strings decodes each of them.
        let mut open = vec![again];
        while let Some(part) = open.pop() {
            if part.kind() == JsonKind::Text {
                prop_assert!(serde_json::from_str::<String>(part.as_str()).is_ok(), "{}", part.as_str());
            }
            open.extend(part.items().chain(part.members().map(|(_, value)| value)));
        }
    }

    #[test]
    fn a_storable_text_has_no_nul_and_no_more_levels_than_asked(text in text(), most in 0_usize..5) {
        let json = read(&text);
        let storable = json.storable(most);
        let value = read(&storable).to_value();
        prop_assert!(depth(&value) <= most && !contains_nul(&value), "{}", storable);
        prop_assert_eq!(read(&storable).storable(most), storable.as_ref());
        let is_plain = depth(&json.to_value()) <= most && !contains_nul(&json.to_value());
        prop_assert!(!is_plain || value == json.to_value());
    }

    #[test]
    fn a_deep_text_is_read_and_cut_where_a_tree_ends(levels in 1_usize..300) {
        let text = "[".repeat(levels) + &"]".repeat(levels);
        prop_assert_eq!(depth(&read(&text).to_value()), levels.min(MAX_DEPTH));
    }
}
