//! Tests of the content that a flow file may have, and of the messages about problems.

use std::collections::BTreeMap;

use super::flow::CONCURRENCY;
use super::*;
use crate::Action;

fn check_text(toml: &str) -> Result<Flow, Vec<String>> {
    let templates = BTreeMap::from([("welcome.html".to_owned(), "{{ user.email }}".to_owned())]);
    let source = FlowSource { name: "test".into(), file: "test.toml".into(), toml: toml.into(), templates };
    Flow::check(source).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

const GOOD: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
subject = "Hello"
template = "welcome"
"#;

#[test]
fn a_good_flow_is_read_with_its_defaults() {
    let flow = check_text(GOOD).expect("nothing is wrong");
    assert_eq!((flow.concurrency, flow.steps.len(), flow.from), (CONCURRENCY, 1, None));
    assert_eq!(flow.version.len(), 12);
}

#[test]
fn a_flow_may_be_off_until_it_is_named() {
    assert!(check_text(GOOD).expect("good").enabled);
    assert!(!check_text(&format!("enabled = false\n{GOOD}")).expect("good").enabled);
    assert!(check_text(&format!("enabled = true\n{GOOD}")).expect("good").enabled);
}

#[test]
fn the_variables_that_a_flow_names_are_known_and_none_of_them_may_hold_a_secret() {
    let naming = |name: &str| check_text(&GOOD.replace("{{ user.email }}", &format!("{{{{ setting.{name} }}}}")));
    let flow = naming("USHER_REPLIES_TO").expect("good");
    assert_eq!(flow.settings.names().collect::<Vec<_>>(), ["USHER_REPLIES_TO"]);
    for (name, expected) in [
        ("RESEND_API_KEY", "setting.RESEND_API_KEY: of Usher's own settings, flows may name USHER_FROM and"),
        ("inbox", "setting.inbox is no variable of the environment"),
    ] {
        let problems = naming(name).expect_err("it may not be named").join("\n");
        assert!(problems.contains(expected), "{problems}");
    }
    let problems = check_text(&GOOD.replace("user.email", "setting")).expect_err("no name").join("\n");
    assert!(problems.contains("setting is followed by the name of a variable"), "{problems}");
}

#[test]
fn the_version_changes_with_the_file_and_with_a_template() {
    let flow = check_text(GOOD).expect("good");
    assert_ne!(flow.version, check_text(&format!("{GOOD}\n# more")).expect("good").version);
    let mut source = flow.source.clone();
    source.templates.insert("welcome.html".into(), "other".into());
    assert_ne!(flow.version, source.version());
}

#[test]
fn the_version_changes_with_the_name() {
    let flow = check_text(GOOD).expect("good");
    let renamed = FlowSource { name: "other".into(), ..flow.source.clone() };
    assert_ne!(flow.version, renamed.version(), "idempotency keys begin with it");
}

#[test]
fn two_flows_cannot_be_the_same_one_by_their_former_names() {
    let named = |name: &str, was: &str| {
        let toml = if was.is_empty() { GOOD.to_owned() } else { format!("was = \"{was}\"\n{GOOD}") };
        let templates = BTreeMap::from([("welcome.html".to_owned(), "hello".to_owned())]);
        Flow::check(FlowSource { name: name.into(), file: format!("{name}.toml"), toml, templates }).expect("good")
    };
    let told = |flows: &[Flow]| Flow::same_by_former_name(flows).map(|problem| problem.to_string()).unwrap_or_default();
    assert_eq!(told(&[named("new", "old"), named("other", "former")]), "");
    let both = told(&[named("new", "old"), named("old", "")]);
    assert!(both.starts_with("new.toml:1: was = \"old\": a flow of that name has a file"), "{both}");
    let twins = told(&[named("new", "old"), named("other", "old")]);
    assert!(twins.starts_with("other.toml:1: was = \"old\": new has the same former name"), "{twins}");
}

#[test]
fn each_mistake_is_told_with_its_line_and_what_would_be_right() {
    for (from, to, expected) in [
        ("to = ", "too = ", "test.toml:6: resend.send has no key too; did you mean to?"),
        ("to = \"{{ user.email }}\"\n", "", "test.toml:5: send needs to"),
        ("resend.send", "resent.send", "test.toml:5: there is no \"resent.send\"; did you mean resend.send?"),
        ("user.email", "usr.email", "test.toml:6: usr is not known here; did you mean user?"),
        ("{{ user.email", "{{ steps.mial.id", "test.toml:6: there is no earlier step mial"),
        (
            "\"welcome\"",
            "\"welcom\"",
            "test.toml:8: there is no templates/welcom.html or templates/welcom.txt; did you mean welcome?",
        ),
        (
            "clerk/user.created",
            "user.created",
            "test.toml:2: \"user.created\" lacks its source: did you mean \"clerk/user.created\"?",
        ),
        ("on = [\"clerk/user.created\"]", "", "test.toml:1: on is missing"),
        ("on = ", "retries = 3\non = ", "test.toml:2: a flow has no key retries; did you mean retry?"),
        ("on = ", "expires_after = \"soon\"\non = ", "test.toml:2: expires_after is a time"),
        ("on = ", "priority = \"high\"\non = ", "test.toml:2: priority may be \"urgent\" or \"normal\""),
        ("on = ", "instances = \"staging\"\non = ", "test.toml:2: instances is a list such as"),
        ("on = ", "instances = [\"Staging\"]\non = ", "test.toml:2: instances is a list such as"),
        ("to = ", "for_deleted = 1\nto = ", "test.toml:6: for_deleted is true or false"),
        ("[[step]]", "[[step]]\nwait = \"3d\"", "test.toml:3: a step has either use"),
        ("{{ user.email }}", "{{ user.email", "test.toml:6: syntax error"),
        ("subject = \"Hello\"", "subject = 7", "test.toml:7: subject is a text"),
        ("on = ", "if = \"user.email\"\non = ", "test.toml:2: if names user.email, but it is looked at when the event"),
        ("on = ", "if = \"event.\"\non = ", "test.toml:2: syntax error"),
        ("on = ", "expires_if = \"event.id\"\non = ", "test.toml:2: expires_if says what expires"),
        ("on = ", "remember = \"email\"\non = ", "test.toml:2: remember is a list of fields"),
        ("user.email", "before.email", "test.toml:6: before is not known here; say remember = [\"email\"]"),
        ("on = [", "on = [[", "test.toml:"),
        ("name = \"mail\"", "marketing = \"All\"", "test.toml:4: marketing is the name of the list"),
        ("name = \"mail\"", "marketing = true", "test.toml:4: marketing is the name of the list"),
        ("to = \"{{ user.email }}\"", "marketing = \"n\"\nto = [\"a\", \"b\"]", "test.toml:7: to is one address"),
        (
            "to = \"{{ user.email }}\"",
            "marketing = \"n\"\nto = \"{{ unsubscribe_url }}\"",
            "test.toml:7: unsubscribe_url is",
        ),
        ("\"Hello\"", "\"{{ unsubscribe_url }}\"", "test.toml:7: unsubscribe_url is known in what marketing mail says"),
        (
            "[[step]]",
            "[[step]]\nuse = \"algolia.delete\"\nobject_id = \"1\"\nmarketing = \"n\"\n[[step]]",
            "test.toml:6: delete writes to nobody",
        ),
    ] {
        let problems = check_text(&GOOD.replacen(from, to, 1)).expect_err(expected);
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected:?} is not among {problems:?}");
    }
}

#[test]
fn what_was_before_is_known_of_the_fields_that_are_remembered() {
    let remembering = GOOD.replacen("on = ", "remember = [\"email\"]\non = ", 1);
    let flow = check_text(&remembering.replace("user.email", "before.email")).expect("good");
    assert_eq!(flow.remember, ["email"]);
    let problems = check_text(&remembering.replace("user.email", "before.emial")).expect_err("it is misspelt");
    assert_eq!(problems, ["test.toml:7: the flow does not remember emial; did you mean email?"]);
    check_text(&remembering.replace("[[step]]", "[[step]]\nwhen = \"'email' in changed\"")).expect("good");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let problems =
        check_text("on = [\"x\"]\nfrom = 3\n[[step]]\nuse = \"a.b\"\n[[step]]\n").expect_err("four mistakes");
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn a_star_stands_for_the_rest_of_a_type() {
    let flow = check_text(&GOOD.replace("user.created", "user.*").replace("name = ", "when = \"user.email\"\nname = "));
    let flow = flow.expect("good");
    let event = |kind: &str| usher_proto::Event {
        id: usher_proto::EventId::new("1"),
        kind: kind.into(),
        source: usher_proto::Source::Clerk,
        subject: usher_proto::SubjectId::new(
            usher_proto::Source::Clerk,
            &usher_proto::Instance::default(),
            &usher_proto::Key::new("k"),
        ),
        occurred_at: usher_proto::Timestamp::default(),
        received_at: usher_proto::Timestamp::default(),
        provenance: Vec::new(),
        body: bytes::Bytes::new(),
    };
    assert!(flow.starts_on(&event("user.deleted")));
    assert!(!flow.starts_on(&event("users.created")) && !flow.starts_on(&event("session.created")));
}

#[test]
fn marketing_mail_can_show_the_link_that_ends_it() {
    let text = GOOD.replace("name = \"mail\"", "marketing = \"news\"").replace("Hello", "Hello {{ unsubscribe_url }}");
    let flow = check_text(&text).expect("good");
    assert!(matches!(&flow.steps[0].action, Action::Call(call) if call.marketing.as_deref() == Some("news")));
}

/// A run continues with the version that it began with, even if newer checks object to that version.
#[test]
fn a_version_that_would_not_be_called_good_today_can_still_be_read() {
    let flow =
        |toml: String| FlowSource { name: "test".into(), file: "test.toml".into(), toml, templates: BTreeMap::new() };
    let text = GOOD.replace("template = \"welcome\"", "text = \"Hello\"");
    for (from, to) in [
        ("name = \"mail\"", "name = \"a.b\""),
        ("on = ", "retry = { first = \"10m\", max = \"1s\" }\non = "),
        ("on = ", "expires_after = \"2y\"\non = "),
        ("to = ", "needs = \"user.email\"\nneeds_within = \"1M\"\nto = "),
        ("\"Hello\"", "\"{{ user.first_name | lowercase }}\""),
        ("subject = \"Hello\"", "subject = \"{{ user.emial }}\""),
    ] {
        let toml = text.replacen(from, to, 1);
        assert!(Flow::check(flow(toml.clone())).is_err(), "{to}");
        assert!(Flow::read(flow(toml)).is_ok(), "{to}");
    }
}

/// Every example step of the documentation is valid in a flow.
#[test]
fn the_documentations_examples_are_steps() {
    let document = include_str!("../../../../docs/destinations.md");
    let examples: Vec<&str> = document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), usher_connectors::CONNECTORS.len());
    for example in examples {
        let toml = format!("on = [\"clerk/user.created\"]\n{example}");
        let templates = [("welcome.html".to_owned(), "Hello".to_owned())].into();
        let name = "example".to_owned();
        let file = "example.toml".to_owned();
        let source = FlowSource { name, file, toml, templates };
        if let Err(problems) = Flow::check(source) {
            panic!("{example}{problems:?}");
        }
    }
}
