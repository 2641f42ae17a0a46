//! Converts parameters from TOML to JSON and checks their types.

use serde_json::{Map, Value};
use toml_edit::{Item, TableLike, Value as Toml};
use usher_connectors::{Param, ParamType};

use super::{Checked, Checker};

impl Checker<'_> {
    /// Returns a parameter's value as JSON. Strings in it are checked as templates.
    pub(super) fn param(&mut self, param: &Param, item: &Item, earlier: &[String]) -> Checked<Value> {
        let value = self.value(item, earlier)?;
        if !param.shape.accepts(&value) {
            self.note(&self.place(item), mismatch(param, &value));
        }
        Ok(value)
    }

    fn value(&mut self, item: &Item, earlier: &[String]) -> Checked<Value> {
        match item {
            Item::Value(value) => self.toml_value(value, earlier),
            Item::Table(table) => self.fields(table, earlier),
            // `[[step.body.blocks]]` is the natural notation for a list of tables.
            Item::ArrayOfTables(tables) => {
                tables.iter().map(|table| self.fields(table, earlier)).collect::<Checked<_>>().map(Value::Array)
            }
            Item::None => Err(self.refuse(&self.place(item), "there is no value")),
        }
    }

    fn toml_value(&mut self, value: &Toml, earlier: &[String]) -> Checked<Value> {
        match value {
            Toml::String(text) => {
                let place = self.place_of(value.span());
                self.template_text(&place, text.value(), earlier);
                Ok(Value::String(text.value().clone()))
            }
            Toml::Integer(number) => Ok(Value::from(*number.value())),
            Toml::Float(number) if number.value().is_finite() => Ok(Value::from(*number.value())),
            Toml::Float(_) => Err(self.refuse(&self.place_of(value.span()), "JSON has no such number")),
            Toml::Boolean(flag) => Ok(Value::from(*flag.value())),
            Toml::Array(items) => {
                items.iter().map(|item| self.toml_value(item, earlier)).collect::<Checked<_>>().map(Value::Array)
            }
            Toml::InlineTable(table) => self.fields(table, earlier),
            Toml::Datetime(time) => {
                Err(self.refuse(&self.place_of(value.span()), format!("write a time as a text: \"{}\"", time.value())))
            }
        }
    }

    fn fields(&mut self, table: &dyn TableLike, earlier: &[String]) -> Checked<Value> {
        let fields = table.iter().map(|(key, item)| Ok((key.to_owned(), self.value(item, earlier)?)));
        fields.collect::<Checked<Map<String, Value>>>().map(Value::Object)
    }
}

/// Returns the message about a parameter of a wrong type.
fn mismatch(param: &Param, value: &Value) -> String {
    let name = param.name;
    match (param.shape, value) {
        (ParamType::Number, Value::String(text)) if text.parse::<u64>().is_ok() => {
            format!("{name} is a number: write {name} = {text}, without quotes")
        }
        (ParamType::Table | ParamType::Selector, Value::Object(fields)) => {
            let wrong = fields.iter().find(|(_, field)| !field.is_string());
            wrong.map_or_else(
                || format!("{name} is {}", param.shape.describe()),
                |(key, field)| match field {
                    Value::Number(_) | Value::Bool(_) => format!("{name}: {key} is {field}: write \"{field}\""),
                    _ => format!("{name}: {key} is no text"),
                },
            )
        }
        (ParamType::Text | ParamType::Id | ParamType::Html, Value::Number(_) | Value::Bool(_)) => {
            format!("{name} is a text: write \"{value}\"")
        }
        (ParamType::Address, Value::String(text)) if text.contains('$') => {
            format!("{name} is {}; a variable is written {{{{ secret.NAME }}}}", param.shape.describe())
        }
        _ => match param.shape.problem(value) {
            Some(problem) => format!("{name}: {problem}"),
            None => format!("{name} is {}", param.shape.describe()),
        },
    }
}
