use axum::http::Method;

use super::*;

fn mail(to: &str) -> Request {
    Request::of(Method::POST, "/emails", "application/json", &format!(r#"{{"to":"{to}"}}"#))
}

fn outage() -> Fault {
    Fault { status: Some(503), ..Fault::default() }
}

#[test]
fn a_share_strikes_about_that_many_and_always_the_same() {
    let struck = || {
        let faults = Faults::default();
        let now = Instant::now();
        faults.set(vec![Fault { share: 0.3, ..outage() }], now).expect("a fault");
        let struck: Vec<bool> = (0..1000).map(|_| faults.take_match(&mail("a@b.test"), 0, now).is_some()).collect();
        assert_eq!(faults.in_force(now)[0].struck, struck.iter().filter(|hit| **hit).count() as u64);
        struck
    };
    let first = struck();
    let count = first.iter().filter(|hit| **hit).count();
    assert!((250..350).contains(&count), "{count} of 1000");
    assert_eq!(first, struck());
}

#[test]
fn of_several_faults_the_first_that_strikes_counts_and_none_follows_the_lots_of_another() {
    let faults = Faults::default();
    let now = Instant::now();
    let hang = Fault { hang: true, share: 0.1, ..Fault::default() };
    let silent = Fault { drop_after_effect: true, share: 0.5, ..Fault::default() };
    faults.set(vec![Fault { share: 0.2, ..outage() }, hang, silent], now).expect("faults");
    let mut struck = [0_u64; 3];
    for _ in 0..1000 {
        let Some(matched) = faults.take_match(&mail("a@b.test"), 0, now) else { continue };
        struck[if matched.fault.status.is_some() { 0 } else { 1 + usize::from(matched.fault.drop_after_effect) }] += 1;
    }
    assert_eq!(faults.in_force(now).iter().map(|fault| fault.struck).collect::<Vec<_>>(), struck);
    // The first hits 20 %, the second a tenth of the remaining requests, the third half of those that are left.
    let expected = [150..250, 50..110, 300..420];
    assert!(struck.iter().zip(&expected).all(|(count, range)| range.contains(count)), "{struck:?} of 1000");
}

#[tokio::test]
async fn a_hanging_request_is_not_served_after_its_own_time() {
    let faults = Faults::default();
    let now = Instant::now();
    let hang = Fault { hang: true, hang_seconds: Some(0.01), ..Fault::default() };
    faults.set(vec![hang], now).expect("a fault");
    assert!(!faults.take_match(&mail("a@b.test"), 0, now).expect("a match").hung().await);
}

#[test]
fn a_match_strikes_one_users_requests_only() {
    let faults = Faults::default();
    let now = Instant::now();
    faults.set(vec![Fault { containing: Some("dana@".into()), ..outage() }], now).expect("a fault");
    assert!(faults.take_match(&mail("dana@work.test"), 0, now).is_some());
    assert!(faults.take_match(&mail("lee@work.test"), 0, now).is_none());
}

#[test]
fn a_fault_ends_by_itself() {
    let faults = Faults::default();
    let now = Instant::now();
    faults.set(vec![Fault { for_seconds: Some(2.0), ..outage() }], now).expect("a fault");
    let just_before = now + Duration::from_millis(1999);
    assert_eq!(faults.in_force(now)[0].seconds_left, Some(2.0));
    assert!(faults.take_match(&mail("a@b.test"), 0, just_before).is_some());
    assert!(faults.take_match(&mail("a@b.test"), 0, now + Duration::from_secs(2)).is_none());
    assert_eq!(faults.in_force(now + Duration::from_secs(2)), []);
}

#[tokio::test]
async fn a_fault_is_over_when_it_is_ended_or_replaced() {
    let faults = Faults::default();
    let now = Instant::now();
    let hang = Fault { hang: true, ..Fault::default() };
    faults.set(vec![hang.clone()], now).expect("a fault");
    let first = faults.take_match(&mail("a@b.test"), 0, now).expect("a match");
    faults.set(vec![hang], now).expect("a fault");
    assert!(first.hung().await);
    let second = faults.take_match(&mail("a@b.test"), 0, now).expect("a match");
    faults.end();
    assert!(second.hung().await);
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    let fault = Fault::default;
    let cases = [
        (fault(), InvalidFault::Nothing),
        (Fault { status: Some(200), ..fault() }, InvalidFault::Status(200)),
        (Fault { share: 0.0, ..outage() }, InvalidFault::Share(0.0)),
        (Fault { share: 1.5, ..outage() }, InvalidFault::Share(1.5)),
        (Fault { for_seconds: Some(-1.0), ..outage() }, InvalidFault::ForSeconds(-1.0)),
        (Fault { for_seconds: Some(1e30), ..outage() }, InvalidFault::ForSeconds(1e30)),
        (Fault { latency_ms: u64::MAX, ..fault() }, InvalidFault::Latency(u64::MAX)),
        (Fault { hang_seconds: Some(1.0), ..outage() }, InvalidFault::HangSeconds(1.0)),
        (Fault { hang: true, hang_seconds: Some(0.0), ..fault() }, InvalidFault::HangSeconds(0.0)),
        (Fault { hang: true, ..outage() }, InvalidFault::Contradiction),
        (Fault { hang: true, drop_after_effect: true, ..fault() }, InvalidFault::Contradiction),
        (Fault { hang: true, retry_after: Some(1), ..fault() }, InvalidFault::WithoutStatus),
        (Fault { drop_after_effect: true, after_effect: true, ..fault() }, InvalidFault::WithoutStatus),
        (Fault { containing: Some(String::new()), ..outage() }, InvalidFault::EmptyMatch),
    ];
    for (fault, expected) in cases {
        assert_eq!(fault.check(), Err(expected), "{fault:?}");
    }
}

#[test]
fn the_documented_example_with_all_fields_is_taken() {
    let text = r#"{"status":503,"latency_ms":0,"share":1.0,"for_seconds":30,"retry_after":2,"hang":false,
        "drop_after_effect":false}"#;
    let fault: Fault = serde_json::from_str(text).expect("a fault");
    assert_eq!(fault.check(), Ok(()));
    assert_eq!((fault.status, fault.for_seconds, fault.retry_after), (Some(503), Some(30.0), Some(2)));
}
