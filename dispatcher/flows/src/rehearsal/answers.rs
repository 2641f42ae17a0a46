//! The answers of steps in a rehearsal.

use serde_json::{Map, Value, json};
use usher_connectors::ParamType;

use super::super::check::Lines;
use super::super::{Action, Flow};
use super::names;

/// A value of an answer. It is a text, because most are.
const MADE: &str = "made_1";

/// Returns the answer of the step at `index`, as if it had created an object. The answer of a service that Usher does not know has the
/// fields that the step names; if it names none, those that the flow's texts use.
pub(super) fn answer(flow: &Flow, index: usize) -> Value {
    let mut answer = json!({ "id": MADE });
    let Some(step) = flow.steps.get(index) else { return answer };
    let Action::Call(call) = &step.action else { return answer };
    let operation = usher_connectors::operation(&call.connector, &call.operation);
    let Some(places) = operation.and_then(|it| it.params.iter().find(|param| param.shape == ParamType::Places)) else {
        return answer;
    };
    match call.params.get(places.name).and_then(Value::as_object) {
        Some(named) => named.keys().for_each(|name| insert(&mut answer, [name.as_str()].into_iter())),
        None => {
            let start = format!("steps.{}.", step.name);
            for used in names::uses(flow, &Lines::default()).iter().flat_map(names::Uses::names) {
                if let Some(path) = used.strip_prefix(&start) {
                    insert(&mut answer, path.split('.'));
                }
            }
        }
    }
    answer
}

/// Sets the value at a path that does not exist.
fn insert<'a>(value: &mut Value, mut path: impl Iterator<Item = &'a str>) {
    let Some(name) = path.next() else { return };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    if let Value::Object(fields) = value {
        insert(fields.entry(name).or_insert_with(|| Value::from(MADE)), path);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::FlowSource;

    fn words(more: &str) -> Result<Value, String> {
        let toml = format!(
            "on = [\"clerk/user.created\"]\n[[step]]\nname = \"words\"\nuse = \"http.request\"\n\
             url = \"https://acme.test/x\"\n{more}\n[[step]]\nuse = \"resend.send\"\nto = \"dana@work.test\"\n\
             subject = \"{{{{ steps.words.subject }}}}\"\ntext = \"{{{{ steps.words.parts.first }}}}\"\n"
        );
        let source = FlowSource { name: "f".into(), file: "f.toml".into(), toml, templates: BTreeMap::new() };
        let flow =
            Flow::check(source).map_err(|problems| problems.iter().map(ToString::to_string).collect::<String>())?;
        Ok(answer(&flow, 0))
    }

    #[test]
    fn an_answer_has_what_the_step_names_or_else_what_the_flow_uses() {
        let used = json!({ "id": "made_1", "subject": "made_1", "parts": { "first": "made_1" } });
        assert_eq!(words(""), Ok(used));
        let error = words("answer = { subject = \"subject\" }").expect_err("the text is not in the answer");
        assert!(error.contains("text: undefined value"), "{error}");
    }
}
