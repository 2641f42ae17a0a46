//! Many worlds with every kind of fault, in which every promise is kept; and broken worlds, in which one is not.

use std::time::Instant;

use super::plan::{Defect, Plan};
use super::world::World;

/// Returns the seed from the environment, to run one world again.
fn asked_seed() -> Option<u64> {
    std::env::var("SEED").ok()?.parse().ok()
}

#[test]
fn twenty_million_steps_keep_every_promise() {
    let begun = Instant::now();
    let enough = std::env::var("INPUTS").ok().and_then(|inputs| inputs.parse().ok()).unwrap_or(20_000_000);
    let mut inputs = 0;
    let mut ended = std::collections::BTreeMap::new();
    let mut crashed = 0;
    let mut rejoins = 0;
    let seeds = asked_seed().map_or(0..1_000_000, |seed| seed..seed + 1);
    let mut count = 0;
    for seed in seeds {
        let mut world = World::new(Plan::wild(seed));
        if let Err(broken) = world.run() {
            panic!("SEED={seed}: at {} {}: {}", world.now, broken.promise, broken.how);
        }
        count += 1;
        inputs += world.inputs;
        crashed += world.checker.crashed;
        rejoins += world.rejoins;
        for (state, number) in &world.store.ended {
            *ended.entry(*state).or_insert(0) += number;
        }
        if inputs >= enough {
            break;
        }
    }
    eprintln!(
        "{inputs} inputs, {count} worlds, {ended:?}, {crashed} as worker_crashed, {rejoins} rejoins, {:?}",
        begun.elapsed()
    );
    assert!(inputs >= enough || asked_seed().is_some());
}

/// Asserts that one of these promises is found broken in a broken world, within a limited number of seeds.
fn is_caught(defect: Defect, promises: &[&str]) {
    for seed in 0..400 {
        let mut world = World::new(Plan { defect, ..Plan::wild(seed) });
        if let Err(broken) = world.run()
            && promises.contains(&broken.promise)
        {
            return;
        }
    }
    panic!("{defect:?} is not noticed");
}

#[test]
fn a_store_without_a_fence_is_noticed() {
    is_caught(Defect::NoFence, &["effects", "order"]);
}

#[test]
fn a_destination_that_forgets_keys_is_noticed() {
    is_caught(Defect::NoMemory, &["effects"]);
}

#[test]
fn a_store_that_forgets_what_is_done_is_noticed() {
    is_caught(Defect::NoEffects, &["effects"]);
}

#[test]
fn a_frontier_that_is_moved_before_the_run_is_stored_is_noticed() {
    is_caught(Defect::FrontierFirst, &["frontier"]);
    is_caught(Defect::FrontierFirstUnseen, &["nothing lost"]);
}

#[test]
fn a_retry_that_leaves_its_lane_is_noticed() {
    is_caught(Defect::ParkLeavesLane, &["order"]);
}

#[test]
fn a_store_that_answers_out_of_order_is_noticed() {
    is_caught(Defect::AnswersOutOfOrder, &["order", "effects", "nothing lost", "in flight"]);
}

#[test]
fn a_store_that_takes_two_instances_for_one_is_noticed() {
    is_caught(Defect::OneInstance, &["cancelled by its own"]);
}

#[test]
fn a_store_that_applies_an_event_again_is_noticed() {
    is_caught(Defect::RepeatedEffects, &["cancelled by its own"]);
}

#[test]
fn a_refusal_that_is_taken_for_an_outage_is_noticed() {
    is_caught(Defect::RefusalIsOutage, &["nothing lost"]);
}

#[test]
fn claims_that_nobody_waits_out_are_noticed() {
    is_caught(Defect::NoClaims, &["effects"]);
}

#[test]
fn news_that_nobody_waits_for_is_noticed() {
    is_caught(Defect::NoEnds, &["no old news"]);
    is_caught(Defect::NoFrontiers, &["no old news"]);
}

#[test]
fn claims_with_the_admission_of_runs_that_must_wait_or_that_are_not_written_are_noticed() {
    is_caught(Defect::FollowersClaimed, &["order", "effects"]);
    is_caught(Defect::FirstClaimsUnwritten, &["no fault of its own", "effects"]);
}

#[test]
fn news_that_are_read_ahead_and_lost_are_noticed() {
    is_caught(Defect::NewsForgotten, &["no old news"]);
    is_caught(Defect::EndingsUnseen, &["no old news"]);
}
