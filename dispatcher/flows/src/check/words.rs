//! Checks the text of expressions and templates: their syntax, their filters, tests and names, and notations
//! of other languages.

use minijinja::{Environment, Error};
use usher_connectors::SECRETS;

use super::super::context::{BEFORE, EVENT, REMEMBERED, ROOTS, UNSUBSCRIBE_URL};
use super::super::flow_settings::{self, SETTING};
use super::super::lexer::{Region, regions};
use super::super::pieces::{Piece, blocks, pieces};
use super::super::problem::{nearest, suggestion};
use super::{Checker, Place};

/// Filters that are suggested for a misspelt one. The environment is queried for the existence of a filter.
const FILTERS: [&str; 33] = [
    "abs",
    "batch",
    "bool",
    "capitalize",
    "count",
    "default",
    "dictsort",
    "escape",
    "first",
    "float",
    "format",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "minus",
    "plus",
    "replace",
    "round",
    "safe",
    "slice",
    "sort",
    "split",
    "title",
    "tojson",
    "trim",
    "upper",
];
/// Tests that are suggested for a misspelt one.
const TESTS: [&str; 14] = [
    "defined",
    "divisibleby",
    "endingwith",
    "even",
    "false",
    "integer",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
];
/// Words of an expression that are not names.
const WORDS: [&str; 12] = ["and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False"];
/// Words of other languages for `none`.
const NOTHING: [&str; 4] = ["null", "nil", "undefined", "NULL"];
/// Statements that load another template. They are rejected, because no other template is available.
const FETCHING: [&str; 4] = ["include", "import", "extends", "from"];

impl Checker<'_> {
    /// Checks an expression, such as the value of `when`.
    pub(super) fn expression(&mut self, place: &Place, text: &str, earlier: &[String]) {
        let environment = self.environment;
        match environment.compile_expression(text) {
            Ok(expression) => {
                self.spelling(place, text, earlier);
                self.names(place, text, &expression.undeclared_variables(true), earlier);
            }
            Err(error) => self.not_parsed(place, &error, &[text], earlier),
        }
    }

    /// Checks a template.
    pub(super) fn template_text(&mut self, place: &Place, text: &str, earlier: &[String]) {
        let environment = self.environment;
        let inside = blocks(text);
        match environment.template_from_str(text) {
            Ok(template) => {
                inside.iter().for_each(|block| self.spelling(place, block, earlier));
                self.names(place, text, &template.undeclared_variables(true), earlier);
            }
            Err(_) if text.contains("{{#") => self.note(place, "a condition is written {% if x %} ... {% endif %}"),
            Err(error) => {
                let place = error.line().map_or_else(|| place.clone(), |line| place.at_line(line));
                self.not_parsed(&place, &error, &inside, earlier);
            }
        }
    }

    /// Records the problem of a text that the parser rejects: with a specific message if the spelling shows the
    /// mistake, otherwise with the parser's message.
    fn not_parsed(&mut self, place: &Place, error: &Error, texts: &[&str], earlier: &[String]) {
        let before = self.objections.len();
        for text in texts {
            if text.contains("{{") || text.contains("}}") {
                let bare = text.replace(['{', '}'], "");
                self.object(place, format!("an expression has no braces: {}", bare.trim()));
            } else {
                self.spelling(place, text, earlier);
            }
        }
        let told = self.objections.split_off(before);
        if told.is_empty() {
            self.note(place, syntax(error));
        }
        self.problems.extend(told);
    }

    /// Checks the pieces of an expression without evaluating it.
    fn spelling(&mut self, place: &Place, text: &str, earlier: &[String]) {
        let found = pieces(text);
        for (at, token) in found.iter().enumerate() {
            let previous = at.checked_sub(1).and_then(|at| found.get(at));
            match token {
                Piece::Symbol(sign @ ("&&" | "||" | "!")) => {
                    let word = match *sign {
                        "&&" => "and",
                        "||" => "or",
                        _ => "not",
                    };
                    self.object(place, format!("{sign} is written {word}"));
                }
                Piece::Symbol("=") if !is_assignment(&found, at) => self.object(place, "= is written =="),
                Piece::Path(parts) if previous == Some(&Piece::Symbol("|")) => {
                    self.filter(place, parts.join(".").as_str())
                }
                Piece::Path(parts) if is_word(previous, "is") || is_negated_test(&found, at) => {
                    if parts[..] != ["not"] {
                        self.test(place, parts.join(".").as_str());
                    }
                }
                Piece::Path(parts)
                    if at == 0 && FETCHING.contains(&parts[0]) && parts.len() == 1 && found.len() > 1 =>
                {
                    self.object(place, format!("there is no {}: a template stands by itself", parts[0]));
                }
                Piece::Path(parts) if found.get(at + 1) == Some(&Piece::Symbol("(")) => self.method(place, parts),
                Piece::Path(parts) if parts[0] == "steps" && found.get(at + 1) == Some(&Piece::Symbol("-")) => {
                    if let Some(step) = dashed(&found[at..], earlier) {
                        self.object(place, format!("write steps['{step}']: a name with a dash is no name here"));
                    }
                }
                Piece::Path(_) | Piece::Text(_) | Piece::Number(_) | Piece::Symbol(_) => {}
            }
        }
    }

    fn filter(&mut self, place: &Place, name: &str) {
        if !is_known(self.environment, name, "filter") {
            self.object(place, format!("there is no filter {name}{}", suggestion(name, FILTERS)));
        }
    }

    fn test(&mut self, place: &Place, name: &str) {
        if !is_known(self.environment, name, "test") {
            self.object(place, format!("there is no test {name}{}", suggestion(name, TESTS)));
        }
    }

    /// Rejects a method call such as `user.name.upper()`, because values have no methods.
    fn method(&mut self, place: &Place, parts: &[&str]) {
        let Some((name, owner)) = parts.split_last().filter(|(_, owner)| !owner.is_empty()) else { return };
        if !ROOTS.contains(&owner[0]) && !REMEMBERED.contains(&owner[0]) {
            return;
        }
        let known = nearest(name, FILTERS).unwrap_or(name);
        self.object(place, format!("values have no methods such as {name}(): write {} | {known}", owner.join(".")));
    }

    /// Checks that names begin with an available top-level name and that `steps.<name>` is an earlier step.
    fn names(&mut self, place: &Place, text: &str, names: &std::collections::HashSet<String>, earlier: &[String]) {
        let remembers = !self.remember.is_empty();
        let roots: Vec<&str> = ROOTS.into_iter().chain(REMEMBERED.into_iter().filter(|_| remembers)).collect();
        let mut names: Vec<&String> = names.iter().collect();
        names.sort();
        // A dash in a step's name was already reported, and the text after the dash is not a name.
        let has_dashes = text.contains("steps.")
            && earlier.iter().any(|step| text.contains(&format!("steps.{step}")) && step.contains('-'));
        for name in names.into_iter().filter(|_| !has_dashes) {
            let mut parts = name.split('.');
            let root = parts.next().unwrap_or_default();
            let next = parts.next();
            if root == SECRETS {
                self.secret(place, text, name);
            } else if !roots.contains(&root) {
                let hint = if NOTHING.contains(&root) {
                    "; write none".to_owned()
                } else if REMEMBERED.contains(&root) {
                    "; say remember = [\"email\"] at the top: which fields the flow is to compare".to_owned()
                } else if next.is_none() && is_compared(text, root) {
                    format!("; a text needs quotes: '{root}'")
                } else {
                    suggestion(root, roots.iter().copied())
                };
                self.note(place, format!("{root} is not known here{hint}"));
            } else if let (BEFORE, Some(field)) = (root, next)
                && !self.remember.iter().any(|known| known == field)
            {
                let hint = suggestion(field, self.remember.iter().map(String::as_str));
                self.note(place, format!("the flow does not remember {field}{hint}"));
            } else if let (SETTING, Some(variable)) = (root, next) {
                match flow_settings::objection(variable) {
                    Some(why) => self.object(place, why),
                    None => {
                        self.settings.insert(variable.to_owned());
                    }
                }
            } else if root == SETTING {
                self.note(
                    place,
                    format!("{SETTING} is followed by the name of a variable: {SETTING}.USHER_REPLIES_TO"),
                );
            } else if root == UNSUBSCRIBE_URL && !self.has_link {
                let why = format!("{root} is known in what marketing mail says, in a step with marketing = \"news\"");
                self.note(place, why);
            } else if let ("steps", Some(step)) = (root, next)
                && !earlier.iter().any(|known| known == step)
            {
                let hint = suggestion(step, earlier.iter().map(String::as_str));
                self.note(place, format!("there is no earlier step {step}{hint}"));
            }
        }
    }

    /// Checks the use of a secret: it stands by itself, because only its place is known when a text is rendered.
    fn secret(&mut self, place: &Place, text: &str, name: &str) {
        let variable = usher_connectors::secret_name(name).unwrap_or_default();
        let stands_alone = |region: &Region| {
            let inside = text[region.range.clone()].trim();
            let names_it =
                pieces(inside).iter().any(|piece| matches!(piece, Piece::Path(parts) if parts[0] == SECRETS));
            !names_it || (region.is_printed && usher_connectors::secret_name(inside).is_some_and(is_plain))
        };
        let message = if !self.takes_secrets {
            "secret is known only in url, query, headers, basic_auth, body, form and text of http.request, and in url and \
             body of http.post"
                .to_owned()
        } else if let Err(why) = usher_service::settings::check_secret_name(variable) {
            format!("{name}: {why}")
        } else if !regions(text).iter().all(stands_alone) {
            format!(
                "{name} stands by itself, {{{{ {name} }}}}, without filters and conditions: its value is not known yet"
            )
        } else {
            return;
        };
        self.note(place, message);
    }

    /// Checks an expression that can access the event only.
    pub(super) fn expression_on_event(&mut self, place: &Place, key: &str, text: &str) {
        let why = "it is looked at when the event arrives, and sees only event, such as event.data.slug";
        self.expression_on(place, text, EVENT, key, why);
    }

    /// Checks an expression that can access `root` only. `why` gives the reason.
    pub(super) fn expression_on(&mut self, place: &Place, text: &str, root: &str, key: &str, why: &str) {
        let environment = self.environment;
        match environment.compile_expression(text) {
            Ok(expression) => {
                self.spelling(place, text, &[]);
                let names = expression.undeclared_variables(true);
                if let Some(name) = names.iter().filter(|name| name.split('.').next() != Some(root)).min() {
                    self.note(place, format!("{key} names {name}, but {why}"));
                }
            }
            Err(error) => self.not_parsed(place, &error, &[text], &[]),
        }
    }
}

/// Returns the parser's message, without the name that it gives to an unnamed text.
fn syntax(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()))
}

/// True if the text is one name.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_known(environment: &Environment<'_>, name: &str, kind: &str) -> bool {
    let asked = environment.compile_expression_owned(format!("name is {kind}"));
    asked.and_then(|asked| asked.eval(minijinja::context! { name })).is_ok_and(|known| known.is_true())
}

fn is_word(token: Option<&Piece<'_>>, word: &str) -> bool {
    matches!(token, Some(Piece::Path(parts)) if parts[..] == [word])
}

/// True if the piece at `at` follows `is not`.
fn is_negated_test(found: &[Piece<'_>], at: usize) -> bool {
    let Some(two_before) = at.checked_sub(2) else { return false };
    is_word(found.get(at - 1), "not") && is_word(found.get(two_before), "is")
}

/// True if the `=` at `at` is an assignment, as in `{% set x = 1 %}`, or belongs to a named argument.
fn is_assignment(found: &[Piece<'_>], at: usize) -> bool {
    let statement = ["set", "with", "macro", "call", "for"].iter().any(|word| is_word(found.first(), word));
    statement || found[..at].contains(&Piece::Symbol("("))
}

/// True if an unquoted word is an operand of a comparison, where a string was probably intended.
fn is_compared(text: &str, word: &str) -> bool {
    let found: Vec<Piece<'_>> = match blocks(text)[..] {
        [] => pieces(text),
        ref parts => parts.iter().flat_map(|part| pieces(part)).collect(),
    };
    let compares =
        |token: Option<&Piece<'_>>| matches!(token, Some(Piece::Symbol("==" | "!="))) || is_word(token, "in");
    (0..found.len()).any(|at| {
        is_word(found.get(at), word)
            && !WORDS.contains(&word)
            && (compares(found.get(at + 1)) || at.checked_sub(1).is_some_and(|at| compares(found.get(at))))
    })
}

/// Returns the earlier step with dashes in its name that `steps.<name>` was intended to name.
fn dashed<'a>(found: &[Piece<'_>], earlier: &'a [String]) -> Option<&'a String> {
    let Some(Piece::Path(parts)) = found.first() else { return None };
    let mut written = parts.get(1)?.to_string();
    let mut rest = &found[1..];
    while let [Piece::Symbol("-"), Piece::Path(more), after @ ..] = rest {
        written = format!("{written}-{}", more[0]);
        if let Some(step) = earlier.iter().find(|step| **step == written) {
            return Some(step);
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::environment;

    #[test]
    fn what_is_suggested_exists() {
        let environment = environment();
        for name in FILTERS {
            assert!(is_known(environment, name, "filter"), "{name}");
        }
        for name in TESTS {
            assert!(is_known(environment, name, "test"), "{name}");
        }
        assert!(!is_known(environment, "lowercase", "filter") && !is_known(environment, "empty", "test"));
    }
}
