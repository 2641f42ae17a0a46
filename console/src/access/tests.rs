use super::*;

const NOW: Timestamp = Timestamp::from_seconds(1_000_000);
const OPERATOR: &str = "operator-token-0123456789";
const READER: &str = "reader-token-0123456789";

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WayIn {
    Loopback,
    Token,
    Proxy,
    Closed,
}

fn policy(way: WayIn) -> AccessPolicy {
    let on_loopback = way == WayIn::Loopback;
    let token = |token: &str| (way == WayIn::Token).then(|| Secret::new(token));
    AccessPolicy {
        on_loopback,
        local_name: "console".to_owned(),
        operator_token: token(OPERATOR),
        reader_token: token(READER),
        user_header: (way == WayIn::Proxy).then(|| "x-user".to_owned()),
        operators: vec!["ann".to_owned()],
        hosts: AllowedHosts::new(on_loopback, &["usher.test".to_owned()]),
    }
}

/// A request for a page.
fn from(host: &str) -> Presented<'_> {
    Presented { host: Some(host), ..Presented::default() }
}

#[test]
fn the_role_is_none_unless_something_gives_another() {
    let reads =
        |way, presented| policy(way).admit(RouteNeed::Read, &presented, NOW).map(|caller| (caller.role, caller.name));
    let own = from("usher.test");
    let named = |role, name: &str| Ok((role, name.to_owned()));
    let session = SessionKey::of(&Secret::new(READER)).open("Bob", NOW);
    for (way, presented, result) in [
        (WayIn::Loopback, own, named(AccessRole::Operator, "console")),
        (
            WayIn::Loopback,
            Presented { bearer: Some("any"), by: Some("c\nron"), ..own },
            named(AccessRole::Operator, "cron"),
        ),
        (WayIn::Closed, own, Err(AccessRefusal::Closed)),
        (WayIn::Closed, Presented { user: Some("ann"), ..own }, Err(AccessRefusal::Closed)),
        (WayIn::Token, own, Err(AccessRefusal::NotSignedIn)),
        (WayIn::Token, Presented { bearer: Some("wrong"), ..own }, Err(AccessRefusal::NotSignedIn)),
        (WayIn::Token, Presented { bearer: Some(""), ..own }, Err(AccessRefusal::NotSignedIn)),
        (WayIn::Token, Presented { bearer: Some(OPERATOR), ..own }, named(AccessRole::Operator, "api")),
        (WayIn::Token, Presented { bearer: Some(READER), by: Some("cron"), ..own }, named(AccessRole::Reader, "cron")),
        (WayIn::Token, Presented { cookie: Some(&session), ..own }, named(AccessRole::Reader, "Bob")),
        (WayIn::Token, Presented { cookie: Some("x"), ..own }, Err(AccessRefusal::NotSignedIn)),
        (WayIn::Token, Presented { user: Some("ann"), ..own }, Err(AccessRefusal::NotSignedIn)),
        (
            WayIn::Token,
            Presented { bearer: Some("wrong"), cookie: Some(&session), ..own },
            Err(AccessRefusal::NotSignedIn),
        ),
        (WayIn::Proxy, own, Err(AccessRefusal::NotSignedIn)),
        (WayIn::Proxy, Presented { user: Some(""), ..own }, Err(AccessRefusal::NotSignedIn)),
        (WayIn::Proxy, Presented { user: Some("ann"), ..own }, named(AccessRole::Operator, "ann")),
        (WayIn::Proxy, Presented { user: Some("bob"), ..own }, named(AccessRole::Reader, "bob")),
    ] {
        assert_eq!(reads(way, presented), result, "{way:?} {presented:?}");
    }
}

#[test]
fn a_host_that_is_not_ours_opens_nothing() {
    for way in [WayIn::Loopback, WayIn::Token, WayIn::Proxy, WayIn::Closed] {
        for need in [RouteNeed::Public, RouteNeed::Read, RouteNeed::Operate] {
            let evil = Presented { bearer: Some(OPERATOR), user: Some("ann"), ..from("evil.test") };
            assert_eq!(policy(way).admit(need, &evil, NOW), Err(AccessRefusal::Host), "{way:?} {need:?}");
            let nowhere = Presented { host: None, ..evil };
            assert_eq!(policy(way).admit(need, &nowhere, NOW), Err(AccessRefusal::Host), "{way:?} {need:?}");
        }
    }
}

#[test]
fn a_change_comes_from_our_own_page_or_from_a_program() {
    let session = SessionKey::of(&Secret::new(OPERATOR)).open("Ann", NOW);
    let token = form_token(&session);
    let other = form_token("another visit");
    let change = Presented { changes: true, ..from("usher.test") };
    let form = Presented { cookie: Some(&session), form_token: Some(&token), ..change };
    for (presented, result) in [
        (form, Ok(())),
        (Presented { origin: Some("https://usher.test"), fetch_site: Some("same-origin"), ..form }, Ok(())),
        (Presented { form_token: None, ..form }, Err(AccessRefusal::NoProof)),
        (Presented { form_token: Some(""), ..form }, Err(AccessRefusal::NoProof)),
        (Presented { form_token: Some(&other), ..form }, Err(AccessRefusal::NoProof)),
        (Presented { cookie: None, bearer: Some(OPERATOR), form_token: None, ..form }, Ok(())),
        (Presented { form_token: None, is_program: true, ..form }, Ok(())),
        (Presented { origin: Some("https://evil.test"), ..form }, Err(AccessRefusal::ForeignSite)),
        (Presented { origin: Some("https://usher.test.evil.test"), ..form }, Err(AccessRefusal::ForeignSite)),
        (Presented { origin: Some("https://usher.test:8443"), ..form }, Err(AccessRefusal::ForeignSite)),
        (Presented { origin: Some("null"), ..form }, Err(AccessRefusal::ForeignSite)),
        (Presented { fetch_site: Some("cross-site"), ..form }, Err(AccessRefusal::ForeignSite)),
        (Presented { fetch_site: Some("same-site"), ..form }, Err(AccessRefusal::ForeignSite)),
        (
            Presented { origin: Some("https://evil.test"), bearer: Some(OPERATOR), ..form },
            Err(AccessRefusal::ForeignSite),
        ),
    ] {
        let admitted = policy(WayIn::Token).admit(RouteNeed::Operate, &presented, NOW).map(|_| ());
        assert_eq!(admitted, result, "{presented:?}");
    }
    let reading =
        Presented { origin: Some("https://evil.test"), fetch_site: Some("cross-site"), changes: false, ..form };
    assert!(policy(WayIn::Token).admit(RouteNeed::Read, &reading, NOW).is_ok(), "a link from elsewhere may lead here");
}

#[test]
fn a_reader_does_not_act() {
    let reader = Presented { bearer: Some(READER), changes: true, ..from("usher.test") };
    assert_eq!(policy(WayIn::Token).admit(RouteNeed::Operate, &reader, NOW), Err(AccessRefusal::Role));
}
