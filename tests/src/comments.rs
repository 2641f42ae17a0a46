//! Comments name things: none of the documentation begins with a question word.

use std::path::Path;

use crate::names::sources;

const QUESTIONS: [&str; 10] = ["What", "Who", "Whom", "Whose", "How", "When", "Which", "Where", "Why", "Whether"];

/// True if a line is documentation that begins with a question word.
fn asks(line: &str) -> bool {
    let line = line.trim_start();
    let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
    text.and_then(|text| text.split_whitespace().next()).is_some_and(|word| QUESTIONS.contains(&word))
}

#[test]
fn no_documentation_begins_with_a_question_word() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut wrong = Vec::new();
    for path in sources(root) {
        let text = std::fs::read_to_string(&path).expect("a source");
        let asking = text.lines().enumerate().filter(|(_, line)| asks(line));
        wrong.extend(asking.map(|(number, line)| format!("{}:{}: {}", path.display(), number + 1, line.trim())));
    }
    assert!(wrong.is_empty(), "say what the thing is: {wrong:#?}");
}

#[test]
fn a_question_is_recognised() {
    for (line, expected) in [
        ("    /// Where a store is.", true),
        ("//! What a run costs.", true),
        ("/// The place of a store.", false),
        ("/// Whatever is sent.", false),
        ("// What follows is a comment with a reason.", false),
    ] {
        assert_eq!(asks(line), expected, "{line}");
    }
}
