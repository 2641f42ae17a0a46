use serde_json::json;

use super::*;

fn read(text: &str) -> Json<'_> {
    Json::read(text).unwrap_or_else(|| panic!("no JSON: {text}"))
}

#[test]
fn what_serde_json_takes_is_taken_and_comes_out_the_same() {
    for text in [
        "null",
        " true ",
        "-0",
        "0.5e-3",
        "18446744073709551615",
        r#""""#,
        r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é""#,
        "[]",
        "[ 1 , [ ] , {} ]",
        r#"{"a":{"b":[1,2,{"c":null}]},"":0}"#,
        "\t{ \"a\" : \"{\\\"b\\\":[}\" }\n",
        r#"{"a":1,"a":2}"#,
    ] {
        let expected: Value = serde_json::from_str(text).expect(text);
        assert_eq!(read(text).to_value(), expected, "{text}");
        assert_eq!(read(text).as_str(), text.trim());
    }
}

#[test]
fn what_is_no_json_is_refused_wherever_it_breaks() {
    let whole = r#"{"a":[1,-2.5e+3,"x\u00e9",{"b":true}],"c":null}"#;
    for cut in 0..whole.len() {
        assert!(Json::read(&whole[..cut]).is_none(), "{}", &whole[..cut]);
    }
    for text in [
        "",
        "nul",
        "nulll",
        "01",
        "1.",
        ".5",
        "-",
        "+1",
        "1e",
        "1 2",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1,}",
        "[}",
        "{]",
        "[1]]",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u+123\"",
        "\"a\nb\"",
        "\"a",
        "'a'",
        "NaN",
        "\u{feff}1",
    ] {
        assert!(Json::read(text).is_none(), "{text}");
        assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
    }
}

#[test]
fn no_depth_is_too_deep() {
    let deep = 500_000;
    let lists = |deep: usize| format!("{{\"n\":{}1{},\"id\":\"x\"}}", "[".repeat(deep), "]".repeat(deep));
    assert_eq!(read(&lists(deep)).get("id").and_then(Json::text).as_deref(), Some("x"));
    let objects = format!("{}1{}", "{\"a\":".repeat(deep), "}".repeat(deep));
    assert!(Json::read(&objects).is_some() && Json::read(&objects[..objects.len() - 1]).is_none());
    // The tree has a limited depth, and the levels below it are a string.
    let text = lists(5_000);
    let value = read(&text);
    let mut level = &value.to_value()["n"];
    let mut levels = 0;
    while let Some(inner) = level.get(0) {
        level = inner;
        levels += 1;
    }
    assert_eq!((levels, level.as_str().map(|text| &text[..2])), (MAX_DEPTH - 1, Some("[[")));
    let flat = value.storable(5);
    assert_eq!(read(&flat).to_value()["n"][0][0][0].as_array().map(|list| list[0].is_string()), Some(true));
    assert_eq!(read("[[[1],2],3]").storable(2), r#"[["[1]",2],3]"#);
    assert_eq!(read("[[[1],2],3]").storable(3), "[[[1],2],3]");
}

#[test]
fn half_a_pair_is_taken_and_becomes_the_replacement_character() {
    for (text, meant) in [
        (r#""\ud83d""#, "\u{fffd}"),
        (r#""a\ude00b""#, "a\u{fffd}b"),
        (r#""\ud83d\ude00\ud83d""#, "\u{1f600}\u{fffd}"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
        (r#""\ud83d\n""#, "\u{fffd}\n"),
        (r#""\\ud83d""#, "\\ud83d"),
        (r#""\u0000""#, "\0"),
    ] {
        assert_eq!(read(text).text().as_deref(), Some(meant), "{text}");
        let well_formed: String = serde_json::from_str(&read(text).well_formed()).expect("any reader takes it");
        assert_eq!(well_formed, meant, "{text}");
        let stored: String = serde_json::from_str(&read(text).storable(9)).expect("any reader takes it");
        assert_eq!(stored, meant.replace('\0', "\u{fffd}"), "{text}");
    }
    assert!(matches!(read(r#"{"a":"\ud83d\ude00"}"#).well_formed(), Cow::Borrowed(_)), "nothing to change");
    assert_eq!(read(r#"{"\ud83d":1}"#).get("\u{fffd}").map(Json::as_str), Some("1"));
}

#[test]
fn numbers_keep_their_digits() {
    let sent =
        r#"{"a":117.63331139400017,"b":9007199254740991.0,"c":1e400,"d":1E+2,"e":-0.0,"f":100000000000000000000000}"#;
    for (name, value) in read(sent).members() {
        assert_eq!(value.number(), Some(value.as_str()), "{name}");
    }
    assert_eq!((read(sent).storable(9).as_ref(), read(sent).well_formed().as_ref()), (sent, sent));
    let tree = read(sent).to_value();
    assert_eq!((&tree["b"], &tree["c"]), (&json!(9_007_199_254_740_991.0), &json!("1e400")));
}

#[test]
fn a_whole_number_is_read_out_of_a_number_or_the_text_of_one() {
    let exact = |value| Some(Whole { value, is_exact: true });
    let about = |value| Some(Whole { value, is_exact: false });
    for (text, expected) in [
        ("7", exact(7)),
        ("-7", exact(-7)),
        ("7.0", exact(7)),
        ("1795572789586.0", exact(1_795_572_789_586)),
        ("1.795572789586e12", exact(1_795_572_789_586)),
        ("7.9", about(7)),
        ("-7.1", about(-8)),
        ("9223372036854775807", exact(i64::MAX)),
        ("9223372036854775807.0", None),
        ("9007199254740993.0", about(9_007_199_254_740_992)),
        ("18446744073709551615", None),
        ("1e400", None),
        ("-1e400", None),
        ("0.1e-3", about(0)),
        (r#"" 7 ""#, exact(7)),
        (r#""7.5""#, about(7)),
        (r#""+7""#, None),
        (r#""0x7""#, None),
        (r#""inf""#, None),
        (r#""""#, None),
        ("null", None),
        ("true", None),
        ("[7]", None),
        ("{}", None),
    ] {
        assert_eq!(read(text).whole(), expected, "{text}");
    }
}

#[test]
fn a_time_is_milliseconds_or_rfc_3339() {
    let millis = |text: &str| read(text).millis().map(|whole| (whole.value, whole.is_exact));
    for (text, expected) in [
        ("1767261600250", Some((1_767_261_600_250, true))),
        (r#""1767261600250""#, Some((1_767_261_600_250, true))),
        ("1767261600250.5", Some((1_767_261_600_250, false))),
        (r#""2026-01-01T10:00:00.250Z""#, Some((1_767_261_600_250, true))),
        (r#""2026-01-01T11:00:00+01:00""#, Some((1_767_261_600_000, true))),
        (r#""2026-01-01T10:00:00.2505Z""#, Some((1_767_261_600_250, false))),
        (r#""soon""#, None),
        ("9223372036854775807", None),
        ("1e400", None),
        ("{}", None),
    ] {
        assert_eq!(millis(text), expected, "{text}");
    }
}

#[test]
fn nothing_of_a_body_is_printed() {
    assert_eq!(format!("{:?}", read(r#"{"email":"dana@work.test"}"#)), "Json(Object, 26 bytes)");
}

#[test]
fn unique_members_are_found_in_one_pass_and_a_repeated_one_is_refused() {
    let text = r#"{"b":[1,{"a":9}],"\u0061":"x","c":null,"c":0}"#;
    let found = read(text).unique(["a", "b", "d"]).expect("each is there once at most");
    assert_eq!(found.map(|member| member.map(Json::as_str)), [Some(r#""x""#), Some(r#"[1,{"a":9}]"#), None]);
    assert_eq!(read(text).unique(["a", "c"]), None);
    assert_eq!(read("[1]").unique(["a"]), Some([None]));
}
