//! A snapshot of the messages about flow files with one mistake each, so that every change of a message is visible.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::{Flow, FlowSource};

/// Returns a flow with one step.
fn step(lines: &str) -> String {
    format!("on = [\"clerk/user.created\"]\n[[step]]\n{lines}\n")
}

/// Returns a flow that sends a mail, with one line added or replaced.
fn mail(line: &str) -> String {
    let key = |line: &str| line.split('=').next().map(str::trim).unwrap_or_default().to_owned();
    let own = ["use = \"resend.send\"", "to = \"{{ user.email }}\"", "subject = \"Hello\"", "text = \"Welcome\""];
    let kept = own.iter().filter(|known| line.lines().all(|line| key(line) != key(known)));
    step(&kept.copied().chain([line]).collect::<Vec<_>>().join("\n"))
}

fn post(line: &str) -> String {
    step(&format!("use = \"http.post\"\nurl = \"https://hooks.acme.test/x\"\n{line}"))
}

fn request(url: &str, line: &str) -> String {
    step(&format!("use = \"http.request\"\nurl = \"{url}\"\n{line}"))
}

/// Returns the inputs, each as the text that is shown and the file.
fn inputs() -> Vec<(String, String)> {
    let mut inputs = Vec::new();
    let top = |line: &str| mail("text = \"Welcome\"").replacen("on = [\"clerk/user.created\"]", line, 1);
    for line in [
        "on = [\"user.created\"]",
        "on = [\"clerk/user.create\"]",
        "on = [\"clark/user.created\"]",
        "on = [\"acme-pay/order.placed\"]",
        "on = [\"Acme/order.placed\"]",
        "on = [\"stripe/customer.subscription.create\"]",
        "on = [\"nylas/messages.*\"]",
        "on = [\"stripe/invoice.*\"]\nif = \"event.data.object.amount_dew > 0\"",
        "on = [\"stripe/invoice.*\"]\nif = \"event.data.object.amount_due == 'much'\"",
        "on = [\"stripe/invoice.*\"]\nif = \"event.data.object.metadata.plan == 'pro'\"",
        "on = [\"clerk/user.created\", \"acme/order.placed\"]\nif = \"event.data.lst_name == 'x'\"",
        "on = [\"clerk/user.*d\"]",
        "on = [\"clerk/usr.*\"]",
        "on = \"clerk/user.created\"",
        "on: [\"clerk/user.created\"]",
        "on = [\"clerk/user.created]",
        "on = [\"clerk/user.created\"]\nfrom = \"Acme <a@acme.test>\"",
        "on = [\"clerk/user.created\"]\nretry = { first = \"10m\", max = \"1s\" }",
        "on = [\"clerk/user.created\"]\nremember = [\"emial\"]",
        "on = [\"clerk/user.created\"]\nwas = \"former\"",
        "on = [\"clerk/user.created\"]\nwas = \"f\"",
        "on = [\"clerk/user.created\"]\nwas = \"Old.toml\"",
        "on = [\"clerk/user.created\"]\nwas = [\"a\"]",
        "on = [\"clerk/user.created\"]\nif = \"event.data.bannd is false\"",
        "on = [\"clerk/user.created\"]\nif = \"event.data.banned == 'no'\"",
        "on = [\"clerk/user.created\"]\ncancel_if = \"event.data.plan.amount > 0\"",
        "on = [\"clerk/user.created\"]\ncancel_on = [\"clerk/subscriptionItem.active\"]\ncancel_if = \"event.data.plan.amuont > 0\"",
        "on = [\"clerk/user.created\"]\ncancel_on = [\"clerk/subscriptionItem.active\"]\ncancel_if = \"user.email\"",
        "on = [\"clerk/organization.created\"]",
        "on = [\"clerk/session.created\"]",
        "on = [\"clerk/user.*\"]",
        "on = [\"schedule/0 9 * *\"]",
        "on = [\"schedule/0 25 * * *\"]",
        "on = [\"schedule/0 0 30 2 *\"]",
        "on = [\"schedule/0 9 * * 1\", \"clerk/user.created\"]",
        "on = [\"clerk/user.created\"]\ncancel_on = [\"schedule/@daily\"]",
        "on = [\"clerk/user.created\"]\ntime_zone = \"Europe/Berlin\"",
        "on = [\"schedule/@daily\"]\nsubjects = \"user.email\"\ntime_zone = \"Europe/Berln\"",
        "on = [\"schedule/@daily\"]\nsubjects = \"user.emial\"",
        "on = [\"schedule/@daily\"]\nsubjects = \"event.data.x\"",
        "on = [\"schedule/@daily\"]\nsubjects = \"user.email\"\npace = \"fast\"",
        "on = [\"schedule/@daily\"]\npace = \"10/s\"",
        "on = [\"schedule/@daily\"]\nsubjects = \"user.email\"\nif_missed = \"twice\"",
        "on = [\"schedule/@daily\"]\nsubjects = \"user.public_metadata.digest\"",
    ] {
        inputs.push((line.to_owned(), top(line)));
    }
    for line in [
        "to = \"not an address\"",
        "to = \"${user.email}\"",
        "to = \"{user.email}\"",
        "to = \"{{ user.emial }}\"",
        "to = \"{{ usr.email }}\"",
        "from = \"Acme hello@acme\"",
        "subject = \"\"",
        "subject = \"{{ secret.LOOPS_KEY }}\"",
        "subject = \"{{ user.public_metadata.greeting }}\"",
        "subject = \"{{ user.first_name | lowercase }}\"",
        "subject = \"{{ user.first_name.upper() }}\"",
        "subject = \"{{ user.email_addresses }}\"",
        "subject = \"{% include 'footer.html' %}\"",
        "subject = \"{{#if user.name}}Hi{{/if}}\"",
        "text = \"\"",
        "template = \"welcome\"",
        "template = \"welcome.html\"\ntext = \"\"",
        "template = \"broken\"\ntext = \"\"",
        "when = true",
        "when = \"user.email && user.name\"",
        "when = \"!user.banned\"",
        "when = \"user.username = 'nell'\"",
        "when = \"{{ user.email }}\"",
        "when = \"user.email != null\"",
        "when = \"user.public_metadata.plan == pro\"",
        "when = \"user.created_at > '2025-01-01'\"",
        "when = \"user.banned is tru\"",
        "when = \"user.public_metadata.age + 1 > 18\"",
        "when = \"user.public_metadata == {'plan': {'tier': 'pro'}}\"",
        "when = \"user.created_at > '1000' | int\"",
        "when = \"'x' ~ user.banned == 'xtrue'\"",
        "needs = \"user.emial\"",
        "needs = \"user.email\"\nneeds_within = \"1M\"",
        "needs_within = \"1d\"",
        "name = \"{{ user.name }}\"",
        "name = \"a.b\"",
        "cc = \"everybody\"",
        "marketing = \"news\"\nbcc = \"a@acme.test\"",
        "hosted_template = \"welcome\"",
        "variables = { plan = \"pro\" }",
        "scheduled_at = \"tomorrow\"",
        "attachments = [\"../terms.pdf\"]",
        "headers = \"x\"",
        "tags = { who = 1 }",
        "on = [\"clerk/user.created\"]",
        "use = \"slack.post\"",
        "use = \"resend.sent\"",
        "timeout = \"10m\"",
        "wait_until = \"{{ user.created_at }}\"",
    ] {
        inputs.push((line.to_owned(), mail(line)));
    }
    for line in [
        "[[step.body.blocks]]\ntype = \"section\"\ntext = { type = \"mrkdwn\", text = \"*{{ user.name }}*\" }",
        "body = \"hi\"",
        "body = [\"a\"]",
        "body = { user = \"{{ user }}\", at = 2026-01-01 }",
        "body = { text = \"new: {{ user }}\" }",
        "headers = { Authorization = \"x\" }",
        "secret = \"{{ user.id }}\"",
        "method = \"PUT\"",
    ] {
        inputs.push((line.to_owned(), post(line)));
    }
    for line in [
        "method = \"POTS\"",
        "headers = { Authorization = \"Bearer {{ secret.LOOPS_KEY }}\" }",
        "headers = { Authorization = \"{{ secret.STRIPE_SECRET_KEY }}\" }",
        "headers = { Authorization = \"{{ secret.loops_key }}\" }",
        "headers = { Authorization = \"{{ secret }}\" }",
        "headers = { Authorization = \"{{ secret.LOOPS_KEY | trim }}\" }",
        "text = \"{% if secret.LOOPS_KEY %}x{% endif %}\"",
        "headers = { Content-Type = \"text/csv\" }",
        "query = { page = 1 }",
        "success_on = [200]",
        "retry_on = \"6xx\"",
        "answer = { text = \"{{ user.id }}\" }",
        "sign = \"yes\"",
        "idempotency_header = \"{{ user.id }}\"",
        "form = { a = 1 }\nbody = { a = 1 }",
        "method = \"GET\"\nbody = { a = 1 }",
        "when = \"secret.LOOPS_KEY\"",
        "on_unknown_outcome = \"dead_letter\"\ncontent_type = \"text/csv\"\ntext = \"a,b\"",
    ] {
        inputs.push((line.to_owned(), request("https://api.acme.test/x", line)));
    }
    for url in [
        "https://api.acme.test/users/{{ user.id }}",
        "https://api.acme.test/users?id={{ user.id }}",
        "https://{{ user.public_metadata.host }}/x",
        "{{ secret.ACME_URL }}",
        "{{ secret.ACME_URL }}{{ user.id }}",
        "https://api.acme.test/{% if user.id %}x{% endif %}",
    ] {
        inputs.push((format!("url = \"{url}\""), request(url, "")));
    }
    for lines in [
        "use = \"http.post\"\nurl = \"$SLACK_URL\"",
        "use = \"http.post\"\nurl = \"http://example.com\"",
        "use = \"stripe.create_customer\"\nname = \"{{ user.name }}\"",
        "use = \"stripe.create_customer\"\nmetadata = { a = 1 }",
        "use = \"stripe.create_subscription\"\ncustomer = \"cus_1\"\ntrial_days = \"14\"",
        "use = \"mailchimp.put_member\"\nemail = \"{{ user.email }}\"\nstatus_if_new = \"active\"",
        "use = \"http.post\"\nurl = \"https://hooks.acme.test/x\"\ncc = \"a@acme.test\"",
        "use = \"smtp.send\"\nto = \"a@acme.test\"\nsubject = \"Hi\"\ntext = \"Hi\"\nscheduled_at = \"2026-01-31T09:00:00Z\"",
        "use = \"resend.put_contact\"\nemail = \"{{ user.email }}\"\ntopics = { x = \"in\" }\nproperties = { a-b = \"c\" }",
        "use = \"resend.put_contact\"\nemail = \"{{ user.email }}\"\nunsubscribed = \"no\"",
        "use = \"mailchimp.tag_member\"\nemail = \"{{ user.email }}\"",
        "use = \"database.sync_organization\"",
        "use = \"clerk.delete_user\"",
        "use = \"clerk.set_metadata\"",
        "use = \"clerk.set_metadata\"\norganization_id = \"org_1\"\npublic = { plan = \"pro\" }",
        "use = \"clerk.set_organization_metadata\"\norganization_id = \"org_1\"\nunsafe = { plan = \"pro\" }",
        "wait = \"1M\"",
        "wait = \"100y\"",
        "wait = \"2months\"",
        "wait = \"500d\"",
        "wait = \"60w\"",
        "wait = \"999ms\"",
        "wait = \"366d\"",
        "wait = \"3d\"\nwait_until = \"2026-12-24\"",
        "wait_until = \"2026-12-24\"",
        "wait_until = 2026-12-24",
        "wait_until = \"24.12.2026\"",
        "wait_until = \"3d\"",
        "wait_until = \"{{ user.created_at }}\"",
        "wait_until = \"{{ user.created_at | plus('3d') }}\"",
        "wait_until = \"{{ user.created_at | plus('3 dayz') }}\"",
        "wait_until = \"{{ user.created_at | pluss('3d') }}\"",
        "wait_until = \"{{ user.createdat }}\"",
        "wait_until = \"{{ user.email }}\"",
        "wait_until = \"{{ user.last_sign_in_at }}\"",
        "wait_until = \"{{ user.public_metadata.trial_end }}\"",
        "wait_until = \"{{ user.public_metadata.trial_end }}\"\nwhen = \"user.public_metadata.trial_end\"",
        "wait = \"3 dayz\"",
        "",
    ] {
        inputs.push((lines.to_owned(), step(lines)));
    }
    let single = step("use = \"database.sync_user\"").replace("[[step]]", "[step]");
    inputs.push(("[step]".to_owned(), single));
    let dashed = step("name = \"check-in\"\nuse = \"stripe.create_customer\"")
        + "[[step]]\nuse = \"stripe.create_subscription\"\ncustomer = \"{{ steps.check-in.id }}\"\n";
    inputs.push(("customer = \"{{ steps.check-in.id }}\"".to_owned(), dashed));
    inputs
}

#[test]
fn each_mistake_is_told_as_somebody_would_tell_it() {
    let templates = BTreeMap::from([
        ("welcome.html".to_owned(), "<p>Hello</p>".to_owned()),
        ("broken.html".to_owned(), "<p>\n\n{% if %}</p>".to_owned()),
    ]);
    let mut told = String::new();
    for (shown, toml) in inputs() {
        let name = "f".to_owned();
        let file = "flows/f.toml".to_owned();
        let templates = templates.clone();
        writeln!(told, "{shown}").unwrap();
        match Flow::check(FlowSource { name, file, toml, templates }) {
            Ok(flow) => {
                let good = flow.warnings.is_empty().then_some("    good").into_iter();
                let lines = flow.warnings.iter().map(|warning| format!("    warning: {warning}"));
                let all: Vec<String> = good.map(str::to_owned).chain(lines).collect();
                writeln!(told, "{}\n", all.join("\n")).unwrap();
            }
            Err(problems) => {
                let lines: Vec<String> = problems.iter().map(|problem| format!("    {problem}")).collect();
                writeln!(told, "{}\n", lines.join("\n")).unwrap();
            }
        }
    }
    insta::assert_snapshot!("messages", told);
}
