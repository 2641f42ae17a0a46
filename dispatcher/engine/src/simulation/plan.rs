//! The plan of a world: its flow, its destinations, its load, and its faults.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::RetryPolicy;

/// A step of the flow.
#[derive(Debug, Clone, Copy)]
pub(super) enum StepPlan {
    /// Calls a destination; with `needs`, only once the subject is new enough for the event, or never.
    Call { destination: usize, needs: bool },
    /// Waits this long, in ms.
    Wait(i64),
}

/// The plan of a destination.
#[derive(Debug, Clone)]
pub(super) struct DestinationPlan {
    pub(super) name: String,
    /// True if it remembers idempotency keys, so that a repeated request has no second effect.
    pub(super) remembers: bool,
    /// The shortest and the longest duration of a call, in ms.
    pub(super) latency: (i64, i64),
    /// Number of calls that it serves in a second; absent if it is not limited.
    pub(super) quota: Option<u32>,
    /// Probabilities of single failures, in 0..1: an answer 503, a call that hangs, an answer that is lost after the
    /// effect, a connector that panics, an answer that the destination is busy with the same request.
    pub(super) unavailable: f64,
    pub(super) hangs: f64,
    pub(super) answer_lost: f64,
    pub(super) panics: f64,
    pub(super) conflicts: f64,
}

impl DestinationPlan {
    /// Returns the plan of a destination that always serves, at once or nearly so.
    pub(super) fn faultless(name: &str, remembers: bool) -> Self {
        Self {
            name: name.to_owned(),
            remembers,
            latency: (20, 80),
            quota: None,
            unavailable: 0.0,
            hangs: 0.0,
            answer_lost: 0.0,
            panics: 0.0,
            conflicts: 0.0,
        }
    }
}

/// The defect of the world itself, which the checker must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    /// No defect.
    None,
    /// The store accepts writes of replicas that have lost a partition.
    NoFence,
    /// Destinations that should remember idempotency keys do not.
    NoMemory,
    /// The store forgets that a step is done when the owner of its partition changes.
    NoEffects,
    /// The frontier is moved before the records that it covers are stored.
    FrontierFirst,
    /// The same, and the checker does not check frontiers: it must notice that something is lost.
    FrontierFirstUnseen,
    /// A run that is parked leaves its lane.
    ParkLeavesLane,
    /// The store answers in another order than that of the questions.
    AnswersOutOfOrder,
    /// The store cancels by the key alone, regardless of the instance.
    OneInstance,
    /// The store applies an event again that it has already admitted.
    RepeatedEffects,
    /// No replica waits for another replica's attempt that may still be in flight.
    NoClaims,
    /// The log reports that it ends where it begins, so that no replica waits until it has been read.
    NoEnds,
    /// The store reports that the partitions of other replicas have been admitted.
    NoFrontiers,
    /// The store forgets the news that it is told before the records are admitted.
    NewsForgotten,
    /// Records that are read ahead do not show which of them cancel runs.
    EndingsUnseen,
    /// The store claims runs with their admission that another run of their key precedes.
    FollowersClaimed,
    /// The store says that runs are admitted with their claims, and writes no claim.
    FirstClaimsUnwritten,
    /// A refusal is treated as an outage: a request that the store will never accept is repeated for ever.
    RefusalIsOutage,
}

/// Everything that distinguishes one world from another, except chance.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) replicas: usize,
    pub(super) partitions: usize,
    pub(super) users: usize,
    /// The inequality of users; 0 is equal.
    pub(super) zipf: f64,
    pub(super) events: usize,
    /// The time over which the events arrive, in ms.
    pub(super) arrive_over: i64,
    pub(super) steps: Vec<StepPlan>,
    pub(super) destinations: Vec<DestinationPlan>,
    pub(super) in_flight: usize,
    pub(super) retry: RetryPolicy,
    pub(super) expires_after: Option<Duration>,
    /// True if there are events that fail, cancel others, skip steps, need a newer revision, or arrive twice.
    pub(super) odd_events: bool,
    /// The mean time between two faults of replicas, log, store and destinations, in ms; absent if there are none.
    pub(super) chaos_every: Option<i64>,
    /// The fraction of the store's answers that is lost, in 0..1.
    pub(super) answers_lost: f64,
    /// The longest time that the store takes for a turn, in ms.
    pub(super) store_latency: i64,
    pub(super) poll_every: i64,
    pub(super) read_at_once: usize,
    /// Number of records that are not admitted above which a partition is read ahead.
    pub(super) far_behind: i64,
    pub(super) body: usize,
    pub(super) defect: Defect,
}

impl Plan {
    /// Returns the plan of a quiet world: one replica, one step, one destination.
    pub(super) fn quiet(seed: u64) -> Self {
        Self {
            seed,
            replicas: 1,
            partitions: 2,
            users: 50,
            zipf: 0.0,
            events: 500,
            arrive_over: 60_000,
            steps: vec![StepPlan::Call { destination: 0, needs: false }],
            destinations: vec![DestinationPlan::faultless("one", true)],
            in_flight: 32,
            retry: RetryPolicy::default(),
            expires_after: None,
            odd_events: false,
            chaos_every: None,
            answers_lost: 0.0,
            store_latency: 4,
            poll_every: 100,
            read_at_once: 64,
            far_behind: 1024,
            body: 0,
            defect: Defect::None,
        }
    }

    /// Returns the plan of a world with every kind of fault.
    pub(super) fn wild(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15);
        let destinations: Vec<DestinationPlan> = (0..rng.random_range(1..=3))
            .map(|number| DestinationPlan {
                name: format!("d{number}"),
                remembers: rng.random_bool(0.6),
                latency: (5, *[20, 100, 600].get(rng.random_range(0..3)).unwrap_or(&20)),
                quota: rng.random_bool(0.3).then(|| rng.random_range(5..40)),
                unavailable: rng.random_range(0.0..0.06),
                hangs: rng.random_range(0.0..0.02),
                answer_lost: rng.random_range(0.0..0.03),
                panics: rng.random_range(0.0..0.01),
                conflicts: rng.random_range(0.0..0.01),
            })
            .collect();
        let mut steps: Vec<StepPlan> = (0..rng.random_range(1..=3))
            .map(|_| match rng.random_range(0..10) {
                0 => StepPlan::Wait(rng.random_range(500..20_000)),
                _ => {
                    StepPlan::Call { destination: rng.random_range(0..destinations.len()), needs: rng.random_bool(0.2) }
                }
            })
            .collect();
        if steps.iter().all(|step| matches!(step, StepPlan::Wait(_))) {
            steps.push(StepPlan::Call { destination: 0, needs: false });
        }
        Self {
            replicas: rng.random_range(1..=3),
            partitions: rng.random_range(1..=4),
            users: rng.random_range(5..=60),
            zipf: rng.random_range(0.0..1.2),
            events: 700,
            arrive_over: rng.random_range(60_000..240_000),
            steps,
            destinations,
            in_flight: rng.random_range(1..=24),
            retry: RetryPolicy {
                attempts: 12,
                first: Duration::from_millis(200),
                max: Duration::from_secs(rng.random_range(4..30)),
                within: Duration::from_secs(24 * 3600),
            },
            expires_after: rng.random_bool(0.15).then(|| Duration::from_secs(rng.random_range(60..600))),
            odd_events: true,
            chaos_every: Some(rng.random_range(4_000..20_000)),
            answers_lost: rng.random_range(0.0..0.02),
            store_latency: rng.random_range(1..40),
            poll_every: rng.random_range(50..=250),
            read_at_once: rng.random_range(1..100),
            far_behind: rng.random_range(0..30),
            body: 8,
            ..Self::quiet(seed)
        }
    }
}
