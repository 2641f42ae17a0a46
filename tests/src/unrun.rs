//! No test passes without having run: what needs a service is marked with `needs`, and nothing returns early without it.

use std::path::Path;

use crate::names::sources;

/// Signs of a look at the environment, or at what only some machines have.
const LOOKS: [&str; 9] = [
    "var(\"USHER_TEST_",
    "var_os(\"USHER_TEST_",
    "setting(\"USHER_TEST_",
    "real(\"USHER_TEST_",
    "Backend::real(",
    "Broker::prepare(",
    "Cluster::real(",
    "Disk::mount(",
    "Postgres::start(",
];

/// A function of a source file.
struct Function<'a> {
    /// The lines of its attributes.
    attributes: Vec<&'a str>,
    /// Number of the line with its name, from 1.
    line: usize,
    body: Vec<&'a str>,
}

impl Function<'_> {
    fn is_test(&self) -> bool {
        self.attributes
            .iter()
            .any(|line| line.trim() == "#[test]" || line.contains("::test]") || line.contains("::test("))
    }

    fn has_needs(&self) -> bool {
        self.attributes.iter().any(|line| line.contains("needs("))
    }
}

/// Returns the functions of a formatted source: each ends with a brace that stands as deep as its first line.
fn functions(text: &str) -> Vec<Function<'_>> {
    let lines: Vec<&str> = text.lines().collect();
    let depth = |line: &str| line.len() - line.trim_start().len();
    let begins = |line: &str| {
        let line = line.trim_start();
        let words = ["pub ", "pub(crate) ", "pub(super) ", "const ", "async "];
        words.iter().fold(line, |line, word| line.strip_prefix(word).unwrap_or(line)).starts_with("fn ")
    };
    let function = |(number, line): (usize, &&str)| {
        let above = lines[..number].iter().rev().map(|line| line.trim_start());
        let attributes: Vec<&str> = above.take_while(|line| is_above(line)).collect();
        let ends = |candidate: &&&str| depth(candidate) == depth(line) && candidate.trim_start().starts_with('}');
        let last = lines[number..].iter().position(|candidate| ends(&candidate)).unwrap_or(0);
        Function { attributes, line: number + 1, body: lines[number..=number + last].to_vec() }
    };
    lines.iter().enumerate().filter(|(_, line)| begins(line)).map(function).collect()
}

/// True if a line may stand above a function: an attribute, also one that a macro was given, or a comment.
fn is_above(line: &str) -> bool {
    ["#[", "$(#[", "///"].iter().any(|start| line.starts_with(start))
}

/// True if a line leaves its function without a value.
fn returns(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    ["return;", "return }", "return,"].iter().any(|word| code.contains(word)) || code.trim_end().ends_with("return")
}

/// Returns what is wrong with the functions of a source.
fn complaints(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for function in functions(text) {
        let looks: Vec<usize> = function
            .body
            .iter()
            .enumerate()
            .filter(|(_, line)| LOOKS.iter().any(|word| line.contains(word)))
            .map(|(number, _)| number)
            .collect();
        let first = |number: usize| function.line + number;
        for number in &looks {
            // The look, and what rustfmt may break off of its statement.
            let statement = &function.body[*number..function.body.len().min(number + 5)];
            if statement.iter().any(|line| returns(line)) {
                wrong.push(format!("line {}: returns early for want of a service", first(*number)));
            }
        }
        if !function.is_test() {
            continue;
        }
        if let Some(number) = looks.first()
            && !function.has_needs()
        {
            wrong.push(format!("line {}: a test looks for a service without `needs`", first(*number)));
        }
        for (number, line) in function.body.iter().enumerate().filter(|(_, line)| returns(line)) {
            wrong.push(format!("line {}: a test returns early: {}", first(number), line.trim()));
        }
    }
    wrong
}

#[test]
fn no_test_passes_for_want_of_a_service() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut tests = 0;
    let mut wrong = Vec::new();
    for path in sources(root) {
        // It holds the wrong examples.
        if path.ends_with(file!().rsplit('/').next().expect("a name")) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source");
        tests += functions(&text).iter().filter(|function| function.is_test()).count();
        let place = path.strip_prefix(root).expect("below the root").display();
        wrong.extend(complaints(&text).into_iter().map(|complaint| format!("{place}, {complaint}")));
    }
    assert!(tests > 500, "the tests are found: {tests}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_test_that_may_not_run_is_recognised() {
    let test = |attributes: &str, body: &str| format!("{attributes}\nasync fn it() {{\n{body}\n}}\n");
    let needs = "#[needs(kafka)]\n#[tokio::test(flavor = \"multi_thread\")]";
    for (source, count) in [
        (test(needs, "    let kafka = setting(\"USHER_TEST_KAFKA\");"), 0),
        (test("#[tokio::test]", "    let kafka = setting(\"USHER_TEST_KAFKA\");"), 1),
        (test("#[test]", "    assert!(true);"), 0),
        (test("", "    let kafka = setting(\"USHER_TEST_KAFKA\");"), 0),
        (test("", "    let Some(kafka) = setting(\"USHER_TEST_KAFKA\") else { return };"), 1),
        (
            test(
                "",
                "    let Some(kafka) = setting(\"USHER_TEST_KAFKA\") else {\n        say();\n        return;\n    };",
            ),
            1,
        ),
        (test("", "    let Some(last) = lines.last() else { return };"), 0),
        // A test has no reason to end early.
        (test("#[test]", "    let Some(kafka) = kafka() else { return };"), 1),
        (test(needs, "    let Some(backend) = Backend::real() else { return };"), 2),
        (test("#[test]", "    let sum = |n| { if n > 1 { return n } n };\n    // and return;"), 0),
    ] {
        assert_eq!(complaints(&source).len(), count, "{source}{:?}", complaints(&source));
    }
    let nested = "mod it {\n    #[tokio::test]\n    async fn real() {\n        run(Backend::real());\n    }\n}\n";
    assert_eq!(complaints(nested).len(), 1, "{:?}", complaints(nested));
}
