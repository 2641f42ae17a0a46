//! Validates the built-in events against Clerk's own specification of its webhooks, `clerk-webhooks-2025-04-15.yml` of
//! clerk/openapi-specs. The specification is not part of this project: `USHER_TEST_SPECS` names the folder that
//! contains it, and the test is ignored if it is not set.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::traffic::{Template, sample_names};

#[expect(clippy::disallowed_methods, reason = "a variable names the folder of the specification")]
fn specification() -> Value {
    let folder = std::env::var_os("USHER_TEST_SPECS").expect("USHER_TEST_SPECS");
    let file = Path::new(&folder).join("clerk-webhooks-2025-04-15.yml");
    let text = std::fs::read_to_string(&file).expect("the folder holds the specification");
    serde_yaml_ng::from_str(&text).expect("YAML")
}

/// Converts a schema of OpenAPI 3.0 into JSON Schema: `nullable` becomes a separate type, and a schema that an `allOf`
/// extends allows further properties. Clerk extends a `Session`, which allows no further properties, by a required
/// `user`; taken literally, no value could satisfy that.
fn json_schema(schema: &Value, of: &Value) -> Value {
    match schema {
        Value::Array(items) => items.iter().map(|item| json_schema(item, of)).collect(),
        Value::Object(fields) => {
            let mut converted = Map::new();
            for (name, field) in fields {
                match (name.as_str(), field) {
                    ("example" | "nullable", _) => {}
                    ("allOf", Value::Array(parts)) => {
                        converted.insert(name.clone(), parts.iter().map(|part| opened(part, of)).collect());
                    }
                    _ => {
                        converted.insert(name.clone(), json_schema(field, of));
                    }
                }
            }
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                return json!({ "anyOf": [converted, { "type": "null" }] });
            }
            Value::Object(converted)
        }
        other => other.clone(),
    }
}

fn opened(part: &Value, of: &Value) -> Value {
    let named = part["$ref"].as_str().and_then(|name| of.pointer(name.trim_start_matches('#')));
    let mut part = json_schema(named.unwrap_or(part), of);
    if let (Some(_), Some(fields)) = (named, part.as_object_mut()) {
        fields.remove("additionalProperties");
    }
    part
}

#[usher_needs::needs(specs)]
#[test]
fn every_sample_is_what_clerks_specification_says() {
    let specification = specification();
    let components = json_schema(&specification["components"], &specification);
    for name in sample_names() {
        let template = Template::sample(name).expect(name);
        let place = format!("/x-webhooks/{}/post/requestBody/content/application~1json/schema", template.kind());
        let schema = specification.pointer(&place).unwrap_or_else(|| panic!("{name}: no such event"));
        let mut schema = json_schema(schema, &specification);
        schema["components"] = components.clone();
        let validator = jsonschema::draft4::new(&schema).expect("a schema");
        let problems = |sample: &Value| {
            let problem = |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
            validator.iter_errors(sample).map(problem).collect::<Vec<_>>()
        };
        let mut sample: Value = serde_json::from_slice(template.text()).expect("JSON");
        assert_eq!(problems(&sample), Vec::<String>::new(), "{name}");
        sample["data"]["object"] = json!(7);
        assert!(!problems(&sample).is_empty(), "{name}: the specification is asked");
    }
}
