//! JSON as a form: `a[b]=x`. Lists of texts and numbers are written `a[]=x`, lists of tables `a[0][b]=x`.

use usher_proto::Json;
use usher_proto::json::JsonKind;

use crate::path::escape;
use crate::placeholder::{Pieces, TextPiece};

/// Returns the form of a JSON text. Numbers keep their digits; what is null is left out. Data are escaped, secrets not yet.
pub(super) fn encode(json: &str) -> Pieces {
    let mut pairs = Vec::new();
    if let Some(json) = Json::read(json) {
        flatten("", json, &mut pairs);
    }
    let mut pieces: Vec<TextPiece> = Vec::new();
    for (name, value) in pairs {
        let start = if pieces.is_empty() { "" } else { "&" };
        push(&mut pieces, format!("{start}{name}="));
        for piece in Pieces::of(&value).0 {
            match piece {
                TextPiece::Text(text) => push(&mut pieces, escape(&text)),
                secret @ (TextPiece::Secret { .. } | TextPiece::Data { .. }) => pieces.push(secret),
            }
        }
    }
    Pieces(pieces)
}

fn push(pieces: &mut Vec<TextPiece>, text: String) {
    match pieces.last_mut() {
        Some(TextPiece::Text(last)) => last.push_str(&text),
        Some(TextPiece::Secret { .. } | TextPiece::Data { .. }) | None => pieces.push(TextPiece::Text(text)),
    }
}

fn flatten(name: &str, json: Json<'_>, pairs: &mut Vec<(String, String)>) {
    match json.kind() {
        JsonKind::Null => {}
        JsonKind::Object => {
            for (field, value) in json.members() {
                let field = escape(&field);
                let name = if name.is_empty() { field } else { format!("{name}%5B{field}%5D") };
                flatten(&name, value, pairs);
            }
        }
        JsonKind::List => {
            for (index, item) in json.items().enumerate() {
                let is_nested = matches!(item.kind(), JsonKind::Object | JsonKind::List);
                let index = if is_nested { index.to_string() } else { String::new() };
                flatten(&format!("{name}%5B{index}%5D"), item, pairs);
            }
        }
        JsonKind::Text => pairs.push((name.to_owned(), json.text().unwrap_or_default().into_owned())),
        JsonKind::Bool | JsonKind::Number => pairs.push((name.to_owned(), json.as_str().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::placeholder::secret_placeholder;

    fn of(value: &Value) -> String {
        encode(&value.to_string()).fill(&Default::default(), str::to_owned)
    }

    #[test]
    fn tables_and_lists_are_named_with_brackets() {
        let given = json!({
            "email": "a@work.test", "n": 7, "on": true, "none": null,
            "meta": { "plan x": "pro & more", "deep": { "a": "1" } },
            "tags": ["x", "y"], "items": [{ "price": "p" }, { "price": "q" }],
        });
        let form = of(&given);
        for pair in [
            "email=a%40work%2Etest",
            "n=7",
            "on=true",
            "meta%5Bplan%20x%5D=pro%20%26%20more",
            "meta%5Bdeep%5D%5Ba%5D=1",
            "tags%5B%5D=x&tags%5B%5D=y",
            "items%5B0%5D%5Bprice%5D=p&items%5B1%5D%5Bprice%5D=q",
        ] {
            assert!(form.contains(pair), "{pair}: {form}");
        }
        assert!(!form.contains("none"), "{form}");
        assert_eq!(of(&json!({})), "");
    }

    #[test]
    fn numbers_keep_their_digits_and_secrets_their_places() {
        let text = format!(r#"{{"n":12345678901234567890123,"key":"k {}"}}"#, secret_placeholder("KEY"));
        let expected = vec![
            TextPiece::Text("n=12345678901234567890123&key=k%20".into()),
            TextPiece::Secret { secret: "KEY".into() },
        ];
        assert_eq!(encode(&text), Pieces(expected));
    }
}
