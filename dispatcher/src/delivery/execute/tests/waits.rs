//! Waits until a time that the event gives.

use std::time::Duration;

use super::super::wait_time::WaitTime;
use super::*;

/// Returns a flow whose first step waits until this time.
fn until(template: &str) -> String {
    FLOW.replace("[[step]]\n", &format!("[[step]]\nname = \"wait\"\nwait_until = \"{template}\"\n[[step]]\n"))
}

async fn report(template: &str) -> (Scene, StepReport) {
    let scene = scene(&until(template), Idempotency::None, Lookup::Unknown, done).await;
    let report = scene.executor.work(&scene.run, scene.epoch).await;
    (scene, report)
}

#[tokio::test]
async fn a_time_ahead_is_waited_for_and_one_that_is_past_is_not() {
    let (scene, waits) = report("{{ event.occurred_at | plus('2h') }}").await;
    let at = scene.run.event.occurred_at.plus(Duration::from_secs(7200));
    assert_eq!(waits, StepReport::Wait { until: at, news_after: None });

    for template in ["{{ event.occurred_at | minus('2h') }}", "2001-01-01", "{{ event.occurred_at }}"] {
        let (_, passes) = report(template).await;
        let over = matches!(&passes, StepReport::Skipped { why: NotCalled::WaitOver, step, .. } if step == "wait");
        assert!(over, "{template}: {passes:?}");
    }
}

#[tokio::test]
async fn the_time_is_read_once_and_not_again_when_the_wait_is_over() {
    let (mut scene, _) = report("{{ event.occurred_at | plus('2h') }}").await;
    scene.run.wait_until = Some(clock::now());
    let over = scene.executor.work(&scene.run, scene.epoch).await;
    assert!(matches!(over, StepReport::Skipped { why: NotCalled::WaitOver, .. }), "{over:?}");
}

#[tokio::test]
async fn what_is_no_time_or_beyond_a_year_gives_the_run_up_and_says_why() {
    for (template, why) in [
        ("{{ event.occurred_at | plus('367d') }}", "step wait: wait_until: it is more than 366 days ahead"),
        ("{{ event.type }}", "step wait: wait_until: it is no time"),
        ("{{ event.user_id }}", "step wait: wait_until: it came out empty"),
        ("{{ event.data.trial_end }}", "step wait: wait_until: event.data has no trial_end"),
    ] {
        let (_, report) = report(template).await;
        let StepReport::Attempted { outcome: Outcome::Reject { reason: Reason::Template, error }, .. } = &report else {
            panic!("{template}: {report:?}")
        };
        assert!(error.contains(why), "{template}: {error}");
    }
}

#[tokio::test]
async fn the_speed_divides_what_is_left_and_a_doubtful_clock_ends_nothing() {
    let (scene, _) = report("{{ event.occurred_at | plus('2h') }}").await;
    let context = usher_flows::Context::new(&scene.flow, &scene.run, None).expect("a body");
    let usher_flows::Action::Wait(wait) = &scene.flow.steps[0].action else { panic!("it waits") };
    let now = scene.run.event.occurred_at.plus(Duration::from_secs(3600));
    let time = WaitTime { now, is_right: true, speed: 60 };
    assert_eq!(time.end(wait, &context).expect("a time"), now.plus(Duration::from_secs(60)));
    let late = WaitTime { now: now.plus(Duration::from_secs(7200)), ..time };
    assert_eq!(late.end(wait, &context).expect("a time"), scene.run.event.occurred_at.plus(Duration::from_secs(7200)));
    assert!(late.is_past(now) && !WaitTime { is_right: false, ..late }.is_past(now));
}
