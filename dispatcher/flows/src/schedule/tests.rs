//! Tests of the calendar: the changes of the clocks, and searches in both directions.

use proptest::prelude::*;

use super::*;

fn schedule(crons: &[&str], zone: &str) -> Schedule {
    let crons = crons.iter().map(|text| ((*text).to_owned(), read_cron(text).expect("a pattern"))).collect();
    Schedule::new(crons, read_zone(zone).expect("a zone"))
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn local(schedule: &Schedule, after: &str, times: usize) -> Vec<String> {
    let shown = |at: &Timestamp| schedule.local(*at).split('[').next().unwrap_or_default().to_owned();
    schedule.following(at(after), times).iter().map(shown).collect()
}

#[test]
fn a_week_begins_on_monday_at_nine_in_berlin_in_summer_and_in_winter() {
    let weekly = schedule(&["0 9 * * MON"], "Europe/Berlin");
    let times = local(&weekly, "2026-10-20T00:00:00Z", 2);
    assert_eq!(times, ["2026-10-26T09:00:00+01:00", "2026-11-02T09:00:00+01:00"]);
    assert_eq!(weekly.following(at("2026-10-18T00:00:00Z"), 1), [at("2026-10-19T07:00:00Z")], "summer time still");
    assert_eq!(weekly.zone(), "Europe/Berlin");
    assert_eq!(weekly.plan(), "0 9 * * MON in Europe/Berlin");
}

#[test]
fn a_time_that_does_not_exist_fires_after_the_gap_once() {
    // On this night the clocks go from two to three.
    let daily = schedule(&["30 2 * * *"], "Europe/Berlin");
    assert_eq!(local(&daily, "2026-03-28T12:00:00Z", 2), ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]);
    // Two patterns that come to the same moment are one time.
    let both = schedule(&["30 2 * * *", "0 3 * * *"], "Europe/Berlin");
    assert_eq!(local(&both, "2026-03-28T12:00:00Z", 2), ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]);
    assert_eq!(both.latest(at("2026-03-29T12:00:00Z")), Some(at("2026-03-29T01:00:00Z")));
}

#[test]
fn a_time_that_occurs_twice_fires_the_first_time_only() {
    // On this night the clocks go from three to two.
    let daily = schedule(&["30 2 * * *"], "Europe/Berlin");
    assert_eq!(local(&daily, "2026-10-24T12:00:00Z", 2), ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]);
    let second_pass = at("2026-10-25T01:45:00Z");
    assert_eq!(daily.latest(second_pass), Some(at("2026-10-25T00:30:00Z")), "nor when it is looked for later");
}

#[test]
fn a_repeated_time_follows_elapsed_time_through_both_changes() {
    let hourly = schedule(&["0 * * * *"], "Europe/Berlin");
    for night in ["2026-03-28T23:30:00Z", "2026-10-24T23:30:00Z"] {
        let times = hourly.following(at(night), 4);
        let gaps: Vec<u64> = times.windows(2).map(|two| two[1].since(two[0]).as_secs()).collect();
        assert_eq!(gaps, [3600; 3], "{night}");
    }
}

#[test]
fn a_pattern_that_is_none_is_told_with_the_reason() {
    for (text, part) in [
        ("0 9 * *", "it has 4 fields"),
        ("", "it has 0 fields"),
        ("0 9 * * 1 2027 7", "it has 7 fields"),
        ("0 25 * * *", ""),
        ("0 9 * * MUN", ""),
        ("0 0 30 2 *", "no day is such a one"),
        ("@sometimes", ""),
    ] {
        let why = read_cron(text).expect_err(text);
        assert!(!why.is_empty() && why.contains(part), "{text}: {why}");
    }
    for text in ["@daily", "@hourly", "*/2 * * * * *", "0 9 * * 1-5", "0 9 L * *", "0 0 29 2 *", "0 9 * * mon,THU"] {
        assert!(read_cron(text).is_ok(), "{text}");
    }
}

#[test]
fn zones_are_those_of_the_database_that_is_compiled_in() {
    assert!(read_zone("Europe/Berlin").is_some() && read_zone("UTC").is_some() && read_zone("Europe/Berln").is_none());
    assert!(zones().len() > 400);
}

#[test]
fn a_pace_is_a_number_in_a_time() {
    let rate = |text: &str| text.parse::<SubjectPace>().map(SubjectPace::rate);
    assert_eq!(rate("100/s"), Ok(100.0));
    assert_eq!(rate("30/min"), Ok(0.5));
    assert_eq!("7200/h".parse::<SubjectPace>().map(|pace| pace.time_of(10)), Ok(Duration::from_secs(5)));
    for wrong in ["0/s", "100", "/s", "100/w", "20000/s", "-1/s", "1.5/s"] {
        assert_eq!(rate(wrong), Err(InvalidPace), "{wrong}");
    }
}

const PATTERNS: [&str; 9] = [
    "0 9 * * 1",
    "30 2 * * *",
    "0 3 * * *",
    "15 1,2,3 * * *",
    "*/20 * * * *",
    "*/7 * * * * *",
    "0 0 29 2 *",
    "0 12 L * *",
    "@hourly",
];
const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// The two directions agree: the next time is later, nothing lies between, and it is found again from behind.
    #[test]
    fn the_next_time_is_found_again_from_behind(
        one in 0..PATTERNS.len(),
        other in 0..PATTERNS.len(),
        zone in 0..ZONES.len(),
        // The years 2020 to 2032, half of the starts within a day of a change of the clocks in Berlin.
        start in prop_oneof![1_577_836_800_i64..1_956_528_000, 1_774_656_000_i64..1_774_828_800, 1_792_800_000_i64..1_792_972_800],
        part in 0_i64..1000,
    ) {
        let schedule = schedule(&[PATTERNS[one], PATTERNS[other]], ZONES[zone]);
        let start = Timestamp::from_millis(start * 1000 + part);
        let next = schedule.next(start).expect("there is always another");
        prop_assert!(next > start);
        prop_assert_eq!(schedule.latest(next), Some(next));
        prop_assert_eq!(schedule.latest(Timestamp::from_millis(next.millis() + 999)), Some(next));
        let before = schedule.latest(Timestamp::from_millis(next.millis() - 1)).expect("there was always one");
        prop_assert!(before <= start, "{before} is before {next} and after {start}");
        prop_assert_eq!(schedule.next(before), Some(next));
        prop_assert!(!schedule.pattern_at(next).is_empty());
    }
}
