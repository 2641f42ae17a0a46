//! Finds steps that would start themselves without end. A write to the source of a flow's events causes an event. If the flow
//! starts on it, the step is rehearsed again with that event, which differs in all in which every event differs. It has to come
//! to rest.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use usher_connectors::SubjectChange;

use super::super::Action;
use super::part::Part;
use super::scenes::{self, Echo, Scene};

/// Number of writes after which a step that writes again is taken to do so for ever.
const ROUNDS: u32 = 5;

/// Returns the problem of a step that does not come to rest, as the key of the step, a flag that is true for an error, and the
/// message. `index` is the step's place in the flow.
pub(super) fn judge(part: &Part<'_>, index: usize, scenes: &[&Scene]) -> Option<(String, bool, String)> {
    // With the same results of earlier steps in each round first. If these differ, because the steps create something each
    // time, the step may not come to rest either; but most steps do not create anything.
    [false, true].into_iter().find_map(|is_fresh| {
        let (kind, names) = scenes.iter().find_map(|scene| restless(part, index, scene, is_fresh))?;
        let key = names.first().and_then(|name| name.split('.').next()).unwrap_or_default().to_owned();
        let why = if is_fresh {
            "if an earlier step makes something new each time: let that step run once, by its when"
        } else {
            "without end: write values that do not differ in every event, or leave the update out by when"
        };
        let names = names.join(", ");
        let name = &part.step.name;
        Some((key, !is_fresh, format!("step {name}: it writes {names} again with the {kind} that it causes, {why}")))
    })
}

/// Returns the type of the event that a step causes in this scene, and the parameters that it writes again each time. Returns
/// `None` if the step comes to rest.
fn restless(part: &Part<'_>, index: usize, scene: &Scene, is_fresh: bool) -> Option<(&'static str, Vec<String>)> {
    let (mut params, change) = part.change(scene)?;
    let SubjectChange::Becomes(mut after) = change else { return None };
    let kind = if after["object"] == "organization" { "organization.updated" } else { "user.updated" };
    let mut before: Value = serde_json::from_str(scene.known.as_deref()?).ok()?;
    let mut names = BTreeSet::new();
    for round in 1..=ROUNDS {
        let all: Vec<usize> = (0..part.flow.steps.len()).collect();
        let staged = |done: &[usize]| {
            scenes::echo(part.flow, kind, &Echo { before: &before, after: &after, round, done, is_fresh })
        };
        let first = staged(&all)?;
        if !part.flow.starts_on(&first.event) || !part.flow.wants(&first.context).unwrap_or(false) {
            return None;
        }
        let is_done = |step: &usize| {
            let step = &part.flow.steps[*step];
            matches!(step.action, Action::Call(_)) && Part::is_due(step, &first)
        };
        let done: Vec<usize> = (0..index).filter(is_done).collect();
        let (next, change) = part.change(&staged(&done)?)?;
        let SubjectChange::Becomes(changed) = change else { return None };
        names = BTreeSet::new();
        differences("", &params, &next, &mut names);
        params = next;
        before = std::mem::replace(&mut after, changed);
    }
    Some((kind, names.into_iter().collect()))
}

/// Collects the dotted names of the values that differ.
fn differences(within: &str, a: &Map<String, Value>, b: &Map<String, Value>, names: &mut BTreeSet<String>) {
    for name in a.keys().chain(b.keys()) {
        let place = if within.is_empty() { name.clone() } else { format!("{within}.{name}") };
        match (a.get(name), b.get(name)) {
            (Some(Value::Object(a)), Some(Value::Object(b))) => differences(&place, a, b, names),
            (a, b) if a != b => {
                names.insert(place);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::{Flow, FlowSource};

    /// Checks a flow. Returns its warnings, or its errors.
    fn check(on: &str, steps: &str) -> Result<Vec<String>, Vec<String>> {
        let toml = format!("on = [\"{on}\"]\n{steps}");
        let source = FlowSource { name: "f".into(), file: "f.toml".into(), toml, templates: BTreeMap::new() };
        let texts = |problems: Vec<crate::Problem>| problems.iter().map(ToString::to_string).collect();
        Flow::check(source).map(|flow| texts(flow.warnings)).map_err(texts)
    }

    const WRITE: &str = "[[step]]\nname = \"w\"\nuse = \"clerk.set_metadata\"\n";

    #[test]
    fn a_step_that_never_comes_to_rest_is_refused_with_the_names_that_differ() {
        for (on, more, name) in [
            ("clerk/user.*", "public = { seen = \"{{ event.id }}\", plan = \"pro\" }\n", "public.seen again"),
            ("clerk/user.updated", "private = { a = { at = \"{{ event.occurred_at }}\" } }\n", "private.a.at again"),
            ("clerk/user.updated", "unsafe = { at = \"{{ user.updated_at }}\" }\n", "unsafe.at again"),
            // It changes what it reads.
            ("clerk/user.*", "public = { n = \"{{ (user.public_metadata.n or 0) + 1 }}\" }\n", "public.n again"),
            ("clerk/user.*", "public = { on = \"{{ not user.public_metadata.on }}\" }\n", "public.on again"),
        ] {
            let problems = check(on, &format!("{WRITE}{more}")).expect_err("it is refused");
            assert!(problems.len() == 1 && problems[0].contains(name), "{more}: {problems:?}");
            assert!(problems[0].contains("with the user.updated that it causes, without end"), "{problems:?}");
        }
        let organization = "[[step]]\nuse = \"clerk.set_organization_metadata\"\n\
                            organization_id = \"{{ event.data.id }}\"\npublic = { at = \"{{ event.id }}\" }\n";
        let problems = check("clerk/organization.*", organization).expect_err("it is refused");
        assert!(problems[0].contains("the organization.updated that it causes"), "{problems:?}");
    }

    #[test]
    fn a_step_that_comes_to_rest_is_accepted() {
        for (on, more) in [
            ("clerk/user.*", "public = { plan = \"pro\", domain = \"{{ user.email }}\", old = \"\" }\n"),
            ("clerk/user.created", "public = { seen = \"{{ event.id }}\" }\n"),
            ("clerk/session.created", "public = { seen = \"{{ event.id }}\" }\n"),
            ("clerk/user.*", "when = \"event.type == 'user.created'\"\npublic = { seen = \"{{ event.id }}\" }\n"),
            // Another user: the event is about this one.
            ("clerk/user.*", "user_id = \"user_boss\"\npublic = { seen = \"{{ event.id }}\" }\n"),
            ("clerk/user.*", "public = { n = \"{{ [(user.public_metadata.n or 0) + 1, 3] | min }}\" }\n"),
        ] {
            assert_eq!(check(on, &format!("{WRITE}{more}")), Ok(vec![]), "{more}");
        }
        let changed = format!(
            "remember = [\"email\"]\n{WRITE}when = \"'email' in changed\"\npublic = {{ seen = \"{{{{ event.id }}}}\" }}\n"
        );
        assert_eq!(check("clerk/user.updated", &changed), Ok(vec![]));
        let own = changed.replace("email", "public_metadata");
        assert!(check("clerk/user.updated", &own).is_err(), "the write changes what is remembered");
    }

    #[test]
    fn a_result_that_may_be_new_each_time_is_a_warning() {
        let customer =
            "[[step]]\nname = \"customer\"\nuse = \"stripe.create_customer\"\nemail = \"{{ user.email }}\"\n";
        let write = format!("{WRITE}private = {{ customer = \"{{{{ steps.customer.id }}}}\" }}\n");
        let warnings = check("clerk/user.*", &format!("{customer}{write}")).expect("it may come to rest");
        assert!(warnings.len() == 1 && warnings[0].contains("private.customer again"), "{warnings:?}");
        let once = customer.replace("use =", "when = \"event.type == 'user.created'\"\nuse =");
        let write = write.replace("use =", "when = \"event.type == 'user.created'\"\nuse =");
        assert_eq!(check("clerk/user.*", &format!("{once}{write}")), Ok(vec![]));
    }
}
