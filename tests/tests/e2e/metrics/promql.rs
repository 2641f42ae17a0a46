//! Names in an expression of Prometheus: metrics, the labels of their selectors, and the aggregations around them. Reads the part of
//! the language that the dashboards and alerts use.

use std::collections::BTreeSet;

/// A selector of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) metric: String,
    /// Names and values of its matchers; a regular expression of alternatives is several values.
    pub(super) matchers: Vec<(String, Vec<String>)>,
    /// The innermost aggregation operator around it, with the labels that it keeps.
    pub(super) aggregation: Option<(String, BTreeSet<String>)>,
}

const OPERATORS: [&str; 6] = ["sum", "max", "min", "avg", "count", "group"];
/// Words of the language that may stand where a metric's name may.
const WORDS: [&str; 17] = [
    "by",
    "and",
    "or",
    "unless",
    "offset",
    "on",
    "ignoring",
    "without",
    "rate",
    "increase",
    "histogram_quantile",
    "time",
    "vector",
    "bool",
    "absent",
    "max_over_time",
    "predict_linear",
];

/// Returns the selectors of an expression.
pub(super) fn selectors(expression: &str) -> Vec<Selector> {
    let characters: Vec<char> = expression.chars().collect();
    let mut found = Vec::new();
    // For each open parenthesis, the aggregation that it belongs to.
    let mut open: Vec<Option<(String, BTreeSet<String>)>> = Vec::new();
    let mut pending: Option<(String, BTreeSet<String>)> = None;
    let mut at = 0;
    while at < characters.len() {
        let character = characters[at];
        if character == '"' || character == '[' {
            let end = if character == '"' { '"' } else { ']' };
            at += 1 + characters[at + 1..].iter().position(|c| *c == end).expect("it is closed") + 1;
        } else if character == '(' {
            open.push(pending.take());
            at += 1;
        } else if character == ')' {
            open.pop();
            at += 1;
        } else if character.is_ascii_alphabetic() || character == '_' {
            let word = word(&characters[at..]);
            at += word.len();
            let rest: String = characters[at..].iter().collect();
            if OPERATORS.contains(&word.as_str()) {
                let (labels, taken) = grouping(&rest);
                pending = Some((word, labels));
                at += taken;
            } else if !WORDS.contains(&word.as_str()) {
                let (matchers, taken) = matchers(&rest);
                let aggregation = open.iter().rev().flatten().next().cloned();
                found.push(Selector { metric: word, matchers, aggregation });
                at += taken;
            }
        } else if character.is_ascii_digit() {
            // A number, with its unit in `offset 1d`.
            at += characters[at..].iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '.').count();
        } else {
            at += 1;
        }
    }
    found
}

fn word(characters: &[char]) -> String {
    characters.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_' || **c == ':').collect()
}

/// Reads `by (a, b)` at the beginning. Returns the labels and the number of characters.
fn grouping(text: &str) -> (BTreeSet<String>, usize) {
    let trimmed = text.trim_start();
    let Some(list) = trimmed.strip_prefix("by").map(str::trim_start).and_then(|rest| rest.strip_prefix('(')) else {
        return (BTreeSet::new(), 0);
    };
    let (inside, rest) = list.split_once(')').expect("the list ends");
    (inside.split(',').map(|label| label.trim().to_owned()).collect(), text.len() - rest.len())
}

/// Reads `{a="x", b=~"y|z"}` at the beginning. Returns the matchers and the number of characters.
fn matchers(text: &str) -> (Vec<(String, Vec<String>)>, usize) {
    let Some(list) = text.strip_prefix('{') else { return (Vec::new(), 0) };
    let (inside, rest) = list.split_once('}').expect("the selector ends");
    let matcher = |pair: &str| {
        let (name, value) = pair.split_once(['=', '!']).expect("a matcher");
        let value = value.trim_start_matches(['=', '~']).trim_matches('"');
        (name.trim().to_owned(), value.split('|').map(str::to_owned).collect())
    };
    let pairs = inside.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    (pairs.map(matcher).collect(), text.len() - rest.len())
}

#[test]
fn selectors_are_found_with_what_is_around_them() {
    let expression = "sum by (source) (increase(a_total{source!=\"x\", cause!~\"b|c\"}[12h])) > 0\n and max(d) offset 1d or time() - e";
    let found = selectors(expression);
    let names: Vec<&str> = found.iter().map(|selector| selector.metric.as_str()).collect();
    assert_eq!(names, ["a_total", "d", "e"]);
    let matchers = [("source", vec!["x"]), ("cause", vec!["b", "c"])]
        .map(|(name, values)| (name.to_owned(), values.into_iter().map(str::to_owned).collect::<Vec<_>>()));
    assert_eq!(found[0].matchers, matchers);
    assert_eq!(found[0].aggregation, Some(("sum".to_owned(), ["source".to_owned()].into())));
    assert_eq!(found[1].aggregation, Some(("max".to_owned(), BTreeSet::new())));
    assert_eq!(found[2].aggregation, None);
    let nested = selectors("sum by (state) (max by (flow, state) (f))");
    assert_eq!(nested[0].aggregation.as_ref().unwrap().0, "max", "the innermost one");
}
