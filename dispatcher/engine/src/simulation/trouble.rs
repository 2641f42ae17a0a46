//! The effects of one user's or one destination's trouble on all others, and the memory that a backlog takes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::destination::DestinationTrouble;
use super::happening::Fate;
use super::plan::{DestinationPlan, Plan, StepPlan};
use super::world::{Occurrence, World};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const CALL: StepPlan = StepPlan::Call { destination: 0, needs: false };

/// The attempts made: the time, the event and the step of each.
type Timeline = Vec<(i64, usize, usize)>;

fn finish(world: &mut World) {
    if let Err(broken) = world.run() {
        panic!("SEED={}: at {} {}: {}", world.plan.seed, world.now, broken.promise, broken.how);
    }
}

/// Runs a world in which only the choice of users is random, and one event may have a fault.
fn steady(seed: u64, fate: Option<(usize, Fate)>) -> (World, Timeline) {
    let destination = DestinationPlan { latency: (50, 50), ..DestinationPlan::faultless("one", true) };
    let mut world = World::new(Plan {
        users: 40,
        zipf: 0.6,
        events: 3_000,
        arrive_over: 20 * MINUTE,
        steps: vec![CALL, StepPlan::Wait(2 * SECOND), CALL],
        destinations: vec![destination],
        store_latency: 0,
        ..Plan::quiet(seed)
    });
    world.timeline = Some(Vec::new());
    world.fates.extend(fate);
    finish(&mut world);
    let timeline = world.timeline.take().expect("it was asked for");
    (world, timeline)
}

#[test]
fn one_users_trouble_delays_nobody_else() {
    const EVENT: usize = 150;
    for seed in 0..5 {
        let (world, healthy) = steady(seed, None);
        let at = world.events[EVENT].at;
        let until = at + 10 * MINUTE;
        let (troubled, with_trouble) = steady(seed, Some((EVENT, Fate::FailsUntil(until))));
        let user = world.events[EVENT].user;

        let of_others = |timeline: &Timeline| -> Timeline {
            timeline.iter().filter(|(_, event, _)| world.events[*event].user != user).copied().collect()
        };
        assert!(of_others(&healthy).len() > 4_000);
        assert!(of_others(&healthy) == of_others(&with_trouble), "SEED={seed}: others begin at other times");

        let own = |event: usize, step: usize| {
            let mut of = with_trouble.iter().filter(|(_, of, at)| (*of, *at) == (event, step));
            of.next_back().map(|(at, ..)| *at)
        };
        let served = own(EVENT, 0).expect("it is served at last");
        assert!(served >= until, "SEED={seed}");
        let mut behind: Vec<usize> =
            (EVENT + 1..world.events.len()).filter(|event| world.events[*event].user == user).collect();
        behind.retain(|event| world.events[*event].at < served);
        assert!(behind.len() > 3, "SEED={seed}: there is something behind it");
        let begun: Vec<i64> = behind.iter().filter_map(|event| own(*event, 0)).collect();
        assert!(begun.is_sorted() && begun[0] > served, "SEED={seed}: in order, after it");
        // For each run its step and two writes, one run after the other.
        let last = begun.last().expect("some");
        let each = 2 * 50 + 2 * 100;
        let most = served + i64::try_from(behind.len()).expect("few") * each;
        assert!(*last <= most, "SEED={seed}: {last} is later than {most}");
        assert_eq!(troubled.checker.died, 0);
    }
}

/// A world after an outage of an hour.
struct Outage {
    world: World,
    from: i64,
    until: i64,
    timeline: Timeline,
}

const QUOTA: u32 = 200;

/// Runs a world in which the flow's last destination is down for an hour while 100,000 events arrive.
fn outage(seed: u64, both: bool, trouble: DestinationTrouble, expires_after: Option<Duration>) -> Outage {
    let from = 2 * MINUTE;
    let until = 62 * MINUTE;
    let healthy = DestinationPlan { latency: (20, 60), ..DestinationPlan::faultless("healthy", true) };
    let down = DestinationPlan { latency: (20, 60), quota: Some(QUOTA), ..DestinationPlan::faultless("down", false) };
    let of = |destination| StepPlan::Call { destination, needs: false };
    let (destinations, steps, number) =
        if both { (vec![healthy, down], vec![of(0), of(1)], 1) } else { (vec![down], vec![of(0)], 0) };
    let mut world = World::new(Plan {
        partitions: 4,
        users: 20_000,
        zipf: 0.3,
        events: 100_000,
        arrive_over: 63 * MINUTE,
        steps,
        destinations,
        store_latency: 8,
        poll_every: 200,
        expires_after,
        body: 2_000,
        ..Plan::quiet(seed)
    });
    world.timeline = Some(Vec::with_capacity(300_000));
    world.at(from, Occurrence::Trouble(number, trouble));
    world.at(until, Occurrence::Trouble(number, DestinationTrouble::None));
    finish(&mut world);
    let timeline = world.timeline.take().expect("it was asked for");
    Outage { world, from, until, timeline }
}

impl Outage {
    /// Asserts that no run died, and that no attempt during the outage counted.
    fn is_survived(&self) {
        let checker = &self.world.checker;
        assert_eq!((checker.died, checker.most_spent), (0, 0), "{:?}", self.world.store.ended);
        assert_eq!(self.world.store.ended.get("done"), Some(&100_000));
        assert!(checker.most_loaded < 4_096 + 512, "{} runs", checker.most_loaded);
    }

    /// Asserts that more than 0.65 of the quota is used. The destination throttles with whole seconds and is probed
    /// carefully after each time, so about seven tenths are expected.
    fn is_worked_off(&self, number: usize) {
        let used = self.utilisation(number);
        assert!(used > 0.65, "{used} of the quota is used");
        eprintln!("{used:.2} of the quota, {} inputs", self.world.inputs);
    }

    /// Returns the part of the quota that is used from the end of the outage until the backlog is worked off.
    fn utilisation(&self, number: usize) -> f64 {
        let served = &self.world.destinations[number].served;
        let from = usize::try_from(self.until / SECOND).expect("positive") + 30;
        let busy = &served[from..];
        // Only until nearly all of it is done: the rest is limited by the remaining work and not by the quota.
        let total: u32 = busy.iter().sum();
        let mut done = 0;
        let seconds = busy.iter().take_while(|served| {
            done += **served;
            f64::from(done) < 0.9 * f64::from(total)
        });
        let (seconds, calls) = seconds.fold((0, 0), |(seconds, calls), served| (seconds + 1, calls + served));
        f64::from(calls) / f64::from(seconds * QUOTA)
    }
}

#[test]
fn an_outage_of_an_hour_loses_nobody_and_spends_nothing() {
    let outage = outage(1, true, DestinationTrouble::OutOfOrder, None);
    outage.is_survived();

    // The first step continues for each user without unfinished runs: a user's later events wait for the earlier ones.
    let mut first: BTreeMap<u32, usize> = BTreeMap::new();
    for (number, of) in outage.world.events.iter().enumerate() {
        // Excludes the users with runs in flight when the outage began.
        if of.at > outage.from - MINUTE && of.at < outage.until - MINUTE {
            first.entry(of.user).or_insert(number);
        }
    }
    first.retain(|_, number| outage.world.events[*number].at > outage.from);
    assert!(first.len() > 15_000);
    let mut begun: BTreeMap<usize, i64> = BTreeMap::new();
    for (at, number, _) in outage.timeline.iter().filter(|(_, _, step)| *step == 0) {
        begun.entry(*number).or_insert(*at);
    }
    for number in first.values() {
        let at = begun[number];
        let of = &outage.world.events[*number];
        assert!(at - of.at < 2 * SECOND, "e{number} came at {} and was begun at {at}", of.at);
    }

    // Single calls probe if it is back.
    let is_probe =
        |(at, _, step): &&(i64, usize, usize)| *step == 1 && (outage.from + MINUTE..outage.until).contains(at);
    let probes = outage.timeline.iter().filter(is_probe).count();
    assert!((60..400).contains(&probes), "{probes} probes in an hour");
    outage.is_worked_off(1);
}

#[test]
fn an_outage_of_the_only_destination_loses_nobody_and_spends_nothing() {
    let outage = outage(2, false, DestinationTrouble::Hangs, None);
    outage.is_survived();
    outage.is_worked_off(0);
}

#[test]
fn after_an_outage_only_what_has_expired_is_dead() {
    let life = Duration::from_secs(20 * 60);
    let outage = outage(3, false, DestinationTrouble::Unreachable, Some(life));
    let ended = &outage.world.store.ended;
    assert_eq!(ended.values().sum::<usize>(), 100_000);
    // Events of the last twenty minutes are done; earlier ones are dead, for no reason other than expiry.
    assert!(ended["done"] > 30_000 && ended["dead"] > 60_000, "{ended:?}");
    assert_eq!(outage.world.checker.most_spent, 0);
}

#[test]
fn a_backlog_takes_no_more_memory_than_is_allowed() {
    let events = 1_000_000;
    let mut world = World::new(Plan {
        partitions: 6,
        users: 50_000,
        zipf: 0.5,
        events,
        arrive_over: 0,
        in_flight: 64,
        destinations: vec![DestinationPlan { latency: (10, 30), ..DestinationPlan::faultless("one", true) }],
        body: 3_000,
        ..Plan::quiet(1)
    });
    finish(&mut world);
    // The limit itself, and the runs that were about to enter memory when it was reached.
    let checker = &world.checker;
    assert!(checker.most_loaded < 4_096 + 512, "{} runs", checker.most_loaded);
    assert!(checker.most_weight < 32 * 1024 * 1024, "{} bytes", checker.most_weight);
    assert_eq!(world.store.ended.get("done"), Some(&events));
}
