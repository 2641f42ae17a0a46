//! Validates requests against an OpenAPI document.

use std::path::Path;

use serde_json::{Map, Value, json};

/// A request as sent.
#[derive(Debug)]
pub(super) struct SpecRequest {
    method: String,
    path: Vec<String>,
    query: Vec<(String, String)>,
    headers: Vec<String>,
    body: Option<Value>,
}

impl SpecRequest {
    /// Parses the text of a request.
    pub(super) fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let mut first = lines.next().unwrap().split(' ');
        let method = first.next().unwrap().to_lowercase();
        let target = first.next().unwrap();
        let url = reqwest::Url::parse("http://x.test").unwrap().join(target).unwrap();
        Self {
            method,
            path: url.path().split('/').skip(1).map(str::to_owned).collect(),
            query: url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
            headers: lines.filter_map(|line| Some(line.split_once(':')?.0.to_lowercase())).collect(),
            body: (!body.is_empty()).then(|| serde_json::from_str(body).unwrap()),
        }
    }
}

/// OpenAPI document of a provider.
pub(super) struct Document {
    root: Value,
}

impl Document {
    /// Reads a document in YAML or in JSON, which is a subset of YAML.
    pub(super) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { root: serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())) }
    }

    /// Returns the segments of the path of the provider's server, before which the paths of the document stand.
    fn base(&self) -> Vec<String> {
        let server = self.root["servers"][0]["url"].as_str().unwrap_or_default();
        let path = server.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
        path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
    }

    /// Returns the violations of a request, empty if it is valid.
    pub(super) fn complaints(&self, request: &SpecRequest) -> Vec<String> {
        let Some((item, placed)) = self.find(request) else {
            return vec![format!("no such operation: {} /{}", request.method, request.path.join("/"))];
        };
        let operation = &item[&request.method];
        let parameters: Vec<&Value> = [&item["parameters"], &operation["parameters"]]
            .into_iter()
            .filter_map(Value::as_array)
            .flatten()
            .map(|parameter| self.resolved(parameter))
            .collect();
        let mut wrong = Vec::new();
        for (name, value) in &placed {
            if let Some(parameter) = parameters.iter().find(|it| it["in"] == "path" && it["name"] == name.as_str()) {
                wrong.extend(self.parameter(parameter, value));
            }
        }
        for (name, value) in &request.query {
            match parameters.iter().find(|it| it["in"] == "query" && it["name"] == name.as_str()) {
                Some(parameter) => wrong.extend(self.parameter(parameter, value)),
                None => wrong.push(format!("no such parameter of the query: {name}")),
            }
        }
        for parameter in parameters.iter().filter(|it| it["required"] == true) {
            let name = parameter["name"].as_str().unwrap_or_default();
            let given = match parameter["in"].as_str() {
                Some("query") => request.query.iter().any(|(given, _)| given == name),
                Some("header") => request.headers.contains(&name.to_lowercase()),
                _ => true,
            };
            if !given {
                wrong.push(format!("not given: {name}"));
            }
        }
        wrong.extend(self.body(operation, request.body.as_ref()));
        wrong
    }

    /// Finds the path item and the values of its parameters. Prefers items with fewer parameters.
    fn find<'a>(&'a self, request: &SpecRequest) -> Option<(&'a Value, Vec<(String, String)>)> {
        let base = self.base();
        let asked = request.path.strip_prefix(&*base)?;
        let fits = |(path, item): (&String, &'a Value)| {
            let segments: Vec<&str> = path.split('/').skip(1).collect();
            if segments.len() != asked.len() || item.get(&request.method).is_none() {
                return None;
            }
            let mut placed = Vec::new();
            for (segment, found) in segments.iter().zip(asked) {
                match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                    Some(name) if !found.is_empty() => placed.push((name.to_owned(), decoded(found))),
                    None if segment == found => {}
                    Some(_) | None => return None,
                }
            }
            Some((item, placed))
        };
        self.root["paths"].as_object().unwrap().iter().filter_map(fits).min_by_key(|(_, placed)| placed.len())
    }

    /// Checks a value in a path or query, where every type is written as text.
    fn parameter(&self, parameter: &Value, text: &str) -> Vec<String> {
        let readings = [Some(json!(text)), serde_json::from_str(text).ok(), Some(json!([text]))];
        let complaints: Vec<Vec<String>> =
            readings.into_iter().flatten().map(|value| self.against(&parameter["schema"], &value)).collect();
        if complaints.iter().any(Vec::is_empty) {
            Vec::new()
        } else {
            complaints.into_iter().next().unwrap_or_default()
        }
    }

    fn body(&self, operation: &Value, body: Option<&Value>) -> Vec<String> {
        let wanted = self.resolved(&operation["requestBody"]);
        match (wanted.is_object(), body) {
            (false, None) => Vec::new(),
            (false, Some(_)) => vec!["a body, and none is taken".to_owned()],
            (true, None) if wanted["required"] == true => vec!["no body".to_owned()],
            (true, None) => Vec::new(),
            (true, Some(body)) => {
                let schema = &wanted["content"]["application/json"]["schema"];
                let mut wrong = self.against(schema, body);
                // A schema accepts fields that it does not name, but the provider may refuse them.
                let schema = self.resolved(schema);
                if let (Some(known), Some(given), None) =
                    (schema["properties"].as_object(), body.as_object(), schema.get("additionalProperties"))
                {
                    wrong.extend(
                        given.keys().filter(|name| !known.contains_key(*name)).map(|it| format!("no such field: {it}")),
                    );
                }
                wrong
            }
        }
    }

    /// Resolves a `#/...` reference.
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str().and_then(|place| place.strip_prefix('#')) {
            Some(place) => self.resolved(self.root.pointer(place).unwrap_or_else(|| panic!("{place} is not there"))),
            None => value,
        }
    }

    fn against(&self, schema: &Value, value: &Value) -> Vec<String> {
        assert!(schema.is_object(), "there is a schema to judge by");
        // References are resolved in the whole document.
        let mut whole = Map::new();
        whole.insert("allOf".to_owned(), json!([translated(schema)]));
        whole.insert("components".to_owned(), translated(&self.root["components"]));
        let validator = jsonschema::draft202012::new(&Value::Object(whole)).expect("a schema");
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }
}

/// Converts a schema of OpenAPI 3.0 or 3.1 to JSON Schema.
fn translated(schema: &Value) -> Value {
    match schema {
        Value::Array(items) => items.iter().map(translated).collect(),
        Value::Object(fields) => {
            // JSON Schema ignores OpenAPI's other keywords (`example`, `discriminator`).
            let mut made: Map<String, Value> =
                fields.iter().map(|(name, value)| (name.clone(), translated(value))).collect();
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                return json!({ "anyOf": [made, { "type": "null" }] });
            }
            // In OpenAPI 3.0 these are booleans: true if the bound itself is excluded.
            for (exclusive, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
                if let Some(Value::Bool(out)) = made.get(exclusive).cloned() {
                    made.remove(exclusive);
                    if let (true, Some(value)) = (out, made.remove(bound)) {
                        made.insert(exclusive.to_owned(), value);
                    }
                }
            }
            Value::Object(made)
        }
        other => other.clone(),
    }
}

fn decoded(segment: &str) -> String {
    let query = format!("a={}", segment.replace('+', "%2B"));
    let url = reqwest::Url::parse(&format!("http://x.test/?{query}")).unwrap();
    url.query_pairs().next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_sees_what_is_wrong_with_a_request() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("document.yml");
        let text = r##"
openapi: 3.0.0
paths:
  /things/{id}:
    post:
      parameters:
        - { name: id, in: path, required: true, schema: { type: string, maxLength: 3 } }
        - { name: limit, in: query, schema: { type: integer, minimum: 0, exclusiveMinimum: true } }
        - { name: X-Key, in: header, required: true, schema: { type: string } }
      requestBody:
        required: true
        content: { application/json: { schema: { $ref: "#/components/schemas/Thing" } } }
components:
  schemas:
    Thing: { type: object, required: [name], properties: { name: { type: string, nullable: true }, seats: { type: integer } } }
"##;
        std::fs::write(&path, text).unwrap();
        let document = Document::read(&path);
        let complaints = |line: &str, key: &str, body: &str| {
            document.complaints(&SpecRequest::read(&format!("{line} HTTP/1.1\r\nhost: x\r\n{key}\r\n\r\n{body}"))).len()
        };
        let line = "POST /things/%61b?limit=2";
        let key = "x-key: k";
        assert_eq!(complaints(line, key, r#"{"name":"a"}"#), 0);
        assert_eq!(complaints(line, key, r#"{"name":null,"seats":1}"#), 0);
        for (line, key, body) in [
            ("PUT /things/a", key, r#"{"name":"a"}"#),
            ("POST /thing/a", key, r#"{"name":"a"}"#),
            ("POST /things/abcd", key, r#"{"name":"a"}"#),
            ("POST /things/a?limit=0", key, r#"{"name":"a"}"#),
            ("POST /things/a?limit=x", key, r#"{"name":"a"}"#),
            ("POST /things/a?offset=1", key, r#"{"name":"a"}"#),
            (line, "x-other: k", r#"{"name":"a"}"#),
            (line, key, ""),
            (line, key, "{}"),
            (line, key, r#"{"name":1}"#),
            (line, key, r#"{"name":"a","seats":"1"}"#),
            (line, key, r#"{"name":"a","other":1}"#),
        ] {
            assert_eq!(complaints(line, key, body), 1, "{line}, {key}, {body}");
        }
    }
}
