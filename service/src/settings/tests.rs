use std::path::Path;

use super::*;

fn refused(name: &str) -> Option<String> {
    refuse_unknown(&Environment::from_vars([(name, "hidden")])).err().map(|error| error.to_string())
}

#[test]
fn a_name_that_is_nearly_a_setting_is_refused_with_the_right_one() {
    for (name, meant) in [
        ("USHER_DELIVERY_ONLY_TO", "USHER_DELIVER_ONLY_TO"),
        ("USHER_FORM", "USHER_FROM"),
        ("USHER_RUN_RETENTIONS", "USHER_RUN_RETENTION"),
        ("USHER_LISTEN_STAGING", "USHER_LISTEN"),
        ("USHER_DELIVERY_ONLY_TO_FILE", "USHER_DELIVER_ONLY_TO"),
        ("RESEND_QOUTA", "RESEND_QUOTA"),
        ("RESEND_QOUTA_STAGING", "RESEND_QUOTA"),
        ("RESEND_APIKEY", "RESEND_API_KEY"),
        ("STRIPE_API_KEY", "STRIPE_SECRET_KEY"),
        ("STRIPE_PRICE", "STRIPE_PRICE_ID"),
        ("STRIPE_SECRET_KEYS", "STRIPE_SECRET_KEY"),
        ("SMTP_URI", "SMTP_URL"),
        ("CLERK_WEBHOOK_SECRET", "CLERK_WEBHOOK_SIGNING_SECRET"),
        ("CLERK_WEBHOOK_SIGNING_SECRETS", "CLERK_WEBHOOK_SIGNING_SECRET"),
        ("HTTP_SIGNING_SECRTE", "HTTP_SIGNING_SECRET"),
        ("DATABASE_SHEMA", "DATABASE_SCHEMA"),
    ] {
        let said = refused(name).unwrap_or_default();
        assert_eq!(said, format!("{name}: there is no such setting; did you mean {meant}?"));
    }
    for (name, why) in [
        ("USHER_SOURCE_ACME", "a sender's settings are USHER_SOURCE_<NAME>_SECRET, ..._KEY, ..._SUBJECT and ..._TYPE"),
        ("USHER_SOURCE_CLRK_SECRET", "the name is taken, or one letter away from a name that is: choose another one"),
    ] {
        assert_eq!(refused(name), Some(format!("{name}: there is no such setting; {why}")));
    }
    assert!(refused("USHER_ZZZ").is_some_and(|said| said.ends_with("docs/configuration.md lists all there are")));
    assert!(refused("STRIPE_PUBLISHABLE_KEY").is_some_and(|said| !said.contains("hidden")));
}

#[test]
fn all_that_are_wrong_are_told_at_once() {
    let environment = Environment::from_vars([("USHER_FORM", "a"), ("RESEND_QOUTA", "b"), ("USHER_FROM", "c")]);
    let said = refuse_unknown(&environment).expect_err("two are wrong").to_string();
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn a_file_that_is_named_by_another_programs_variable_is_not_read() {
    let nowhere = Environment::from_vars([("TF_CLI_CONFIG_FILE", "/nowhere"), ("DATABASE_CA_FILE", "/nowhere")]);
    assert_eq!(check_values(&nowhere), Ok(()));
    let ours = Environment::from_vars([("CLERK_WEBHOOK_SIGNING_SECRET_FILE", "/nowhere")]);
    let said = check_values(&ours).expect_err("it is to be read").to_string();
    assert!(said.starts_with("CLERK_WEBHOOK_SIGNING_SECRET_FILE: cannot read \"/nowhere\""), "{said}");
}

#[test]
fn what_is_ours_or_of_others_passes() {
    for name in [
        "USHER_FROM_STAGING",
        "USHER_STORE_FILE",
        "STRIPE_SECRET_KEY_PRE_VIEW",
        "STRIPE_SECRET_KEY_PRE_VIEW_FILE",
        "RESEND_QUOTA_STAGING",
        "CLERK_WEBHOOK_SIGNING_SECRET_STAGING_EU",
        "HTTP_SIGNING_SECRET_BILLING",
        "HTTP_SIGNING_SECRET_BILLING_STAGING",
        "USHER_SOURCE_ACME_SECRET_STAGING",
        "USHER_SOURCE_ACME_PAY_KEY",
        "USHER_KAFKA_SSL_CA_LOCATION",
        "USHER_TEST_POSTGRES",
        "USHER_CHAOS",
        "USHER_CHAOS_SEED",
        "HTTP_PROXY",
        "DATABASE_HOST",
        "DATABASE_POOL_SIZE",
        "CLERK_SECRET_KEY",
        "CLERK_PUBLISHABLE_KEY",
        "USHER_INGEST_SERVICE_HOST",
        "USHER_INGEST_SERVICE_PORT_HTTP",
        "USHER_INGEST_PORT_8080_TCP_ADDR",
        "RUST_BACKTRACE",
        "PATH",
    ] {
        assert_eq!(refused(name), None, "{name}");
    }
    assert_eq!(
        refuse_unknown(&Environment::from_vars([("USHER_PORT", "tcp://10.0.0.1:80"), ("USHER_FORM", "")])),
        Ok(())
    );
}

#[test]
fn a_signing_secret_under_another_name_is_found() {
    let named = |name| named_otherwise(&Environment::from_vars([(name, "whsec_1")]));
    assert_eq!(named("SVIX_SECRET").as_deref(), Some("SVIX_SECRET"));
    assert_eq!(named("RESEND_WEBHOOK_SECRET"), None);
    assert_eq!(named_otherwise(&Environment::from_vars([("SVIX_SECRET", "other")])), None);
}

#[test]
fn values_that_cannot_be_right_are_told_without_being_repeated() {
    for (name, value, why) in [
        ("RESEND_API_KEY", "\"re_1\"", "it has quotes around it: write the value alone"),
        ("USHER_FROM", "'Acme <a@acme.test>'", "it has quotes around it: write the value alone"),
        (
            "RESEND_API_KEY",
            "sk_live_1",
            "this is a secret key of Stripe or Clerk: an API key of Resend begins with re_",
        ),
        ("RESEND_API_KEY", "re_1 ", "it has a blank or a line break in it: copy it again"),
        ("STRIPE_SECRET_KEY", "pk_live_1", "this is the publishable key: the secret key begins with sk_"),
        ("STRIPE_SECRET_KEY_STAGING", "whsec_1", "this is a signing secret: the secret key begins with sk_"),
        ("STRIPE_PRICE_ID", "prod_1", "this is the id of a product: a price begins with price_"),
        ("NYLAS_API_KEY", "re_1", "this is an API key of Resend: an API key of Nylas begins with nyk_"),
    ] {
        let said = check_values(&Environment::from_vars([(name, value)])).expect_err(name).to_string();
        assert_eq!(said, format!("{name}: {why}"));
    }
    for (name, value) in [
        ("RESEND_API_KEY", "re_lab"),
        ("STRIPE_SECRET_KEY", "rk_live_1"),
        ("STRIPE_PRICE_ID", "gold"),
        ("USHER_FROM", "\"Acme, Inc.\" <a@acme.test>"),
        ("NYLAS_GRANT_ID", "one two"),
        ("PATH", "\"quoted\""),
    ] {
        assert_eq!(check_values(&Environment::from_vars([(name, value)])), Ok(()), "{name}");
    }
}

#[test]
fn a_flow_may_name_its_own_variables_as_secrets_and_none_of_ushers() {
    for name in ["SLACK_URL", "LOOPS_API_KEY", "HUBSPOT_TOKEN", "A", "DISCORD_WEBHOOK_2"] {
        assert_eq!(check_secret_name(name), Ok(()), "{name}");
    }
    for (name, why) in [
        ("STRIPE_SECRET_KEY", "a setting of Usher's own"),
        ("STRIPE_SECRET_KEY_STAGING", "a setting of Usher's own"),
        ("DATABASE_URL", "a setting of Usher's own"),
        ("HTTP_SIGNING_SECRET_BILLING", "a setting of Usher's own"),
        ("RUST_LOG", "a setting of Usher's own"),
        ("USHER_KAFKA_SASL_PASSWORD", "begin with USHER_"),
        ("RESEND_OTHER_KEY", "begin with RESEND_"),
        ("HTTP_QOUTA", "a misspelt setting"),
        ("SLACK_URL_FILE", "name SLACK_URL"),
        ("slack", "A-Z, 0-9 and _"),
        ("", "A-Z, 0-9 and _"),
        ("_A", "A-Z, 0-9 and _"),
    ] {
        let error = check_secret_name(name).expect_err(name);
        assert!(error.contains(why), "{name}: {error}");
    }
    let environment = Environment::from_vars([("SLACK_URL", "https://x.test"), ("RESEND_API_KEY", "re_1234567")]);
    assert_eq!(environment.secret("SLACK_URL"), Ok(Some("https://x.test".into())));
    let error = environment.secret("RESEND_API_KEY").expect_err("a setting").to_string();
    assert!(error.starts_with("RESEND_API_KEY: ") && !error.contains("re_1234567"), "{error}");
}

/// Returns the sources of the programs, without those of tests and of the list of settings.
fn sources() -> Vec<String> {
    fn collect(folder: &Path, into: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            let of_tests = path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
            if path.is_dir() {
                collect(&path, into);
            } else if path.extension().is_some_and(|end| end == "rs") && !of_tests && !path.ends_with("settings.rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                into.push(text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned());
            }
        }
    }
    let mut texts = Vec::new();
    for name in ["cli", "clerk", "senders", "console", "dispatcher", "ingest", "eventlog", "proto", "service"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name), &mut texts);
    }
    texts
}

/// Returns string literals that look like the name of an environment variable.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |word: &&str| {
        let letter = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        word.contains('_') && word.chars().all(letter) && !word.ends_with('_') && !word.starts_with('_')
    };
    text.split('"').filter(is_name)
}

#[test]
fn what_the_sources_look_up_is_listed_and_nothing_else() {
    let sources = sources();
    let used: Vec<&str> = sources.iter().flat_map(|text| names(text)).collect();
    let begins_as_ours = |name: &&&str| OURS.iter().chain(SHARED).any(|prefix| name.starts_with(prefix));
    for name in used.iter().filter(begins_as_ours) {
        assert!(is_known(name), "{name} stands in the sources and not in the list");
    }
    for (name, _) in SETTINGS {
        // The name of a quota setting is built from the connector's name.
        let spec = |connector: &str| format!("ConnectorSpec {{\n    name: \"{}\",", connector.to_lowercase());
        let connector = name.strip_suffix("_QUOTA").map(spec);
        let looked_up = match connector {
            Some(connector) => sources.iter().any(|text| text.contains(&connector)),
            None if *name == "USHER_SOURCE" => {
                sources.iter().any(|text| text.contains("with_prefix(usher_proto::source::SENDER_SETTINGS)"))
            }
            // Flow files look up what is open to them.
            None => used.contains(name) || OPEN_TO_FLOWS.contains(name),
        };
        assert!(looked_up, "nobody looks {name} up");
    }
}
