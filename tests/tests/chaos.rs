//! Chaos test: all components are made to fail repeatedly under continuous load, while the destinations are faulty
//! throughout. At the end the ledger is checked: no event is lost, no effect happens twice, order is kept, and
//! every run ends.
//!
//! A short version runs with the other tests. `just chaos` runs the full one; `USHER_CHAOS_SEED` repeats
//! its random choices.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::Mutex;
use usher_lab::{Fault, Filter};
use usher_tests::backend::log_once;
use usher_tests::chaos::{EXPECTED, faults};
use usher_tests::checker::ViolationKind;
use usher_tests::cluster::{Cluster, StorePath};
use usher_tests::ledger::Mark;
use usher_tests::load::{Load, LoadShape};
use usher_tests::needs;
use usher_tests::postgres::Down;
use usher_tests::program::{Program, programs};
use usher_tests::report::{ChaosReport, Course};

/// The tests use the whole machine and therefore run one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Maximum time until the runs expected at the moment of a fault have ended.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(180);
/// Maximum time of each part of the end: until all started events are acknowledged, and until all runs have ended.
const END_DEADLINE: Duration = Duration::from_secs(300);
/// Number of ended runs that shows that work continues.
const SOME: usize = 20;
/// Polling interval only. The condition decides the end.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Number of faults of each kind.
struct Plan {
    kills: usize,
    stops: usize,
    brokers: usize,
    scalings: usize,
    restarts: usize,
    embedded_kills: usize,
    load: LoadShape,
}

const FULL: Plan = Plan {
    kills: 50,
    stops: 20,
    brokers: 20,
    scalings: 10,
    restarts: 5,
    embedded_kills: 50,
    load: LoadShape { rate: 25, users: 200 },
};
const SHORT: Plan = Plan {
    kills: 3,
    stops: 1,
    brokers: 1,
    scalings: 1,
    restarts: 1,
    embedded_kills: 8,
    load: LoadShape { rate: 20, users: 60 },
};

/// Behind a pooler: what its connections are lost by, and what is left on them by programs that die.
const POOLED: Plan = Plan { kills: 2, stops: 1, brokers: 0, scalings: 0, restarts: 1, ..SHORT };

/// Returns the plan of the full test, if that was asked for, else this one.
fn plan_or(short: &'static Plan) -> &'static Plan {
    match std::env::var("USHER_CHAOS").as_deref() {
        Ok("full") => &FULL,
        _ => short,
    }
}

fn plan() -> &'static Plan {
    plan_or(&SHORT)
}

#[needs(kafka_libs, postgres_programs)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_and_postgres() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut chaos = Chaos::new("Kafka and Postgres", Cluster::real(3, StorePath::Direct).await, plan());
    let went = chaos.all(plan()).await;
    chaos.end("kafka", went).await;
}

#[needs(kafka_libs, postgres_programs, pgbouncer)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_and_postgres_behind_pgbouncer() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let plan = plan_or(&POOLED);
    let mut chaos = Chaos::new("Kafka and Postgres behind PgBouncer", Cluster::real(3, StorePath::Pooled).await, plan);
    let went = chaos.all(plan).await;
    chaos.end("pgbouncer", went).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut chaos = Chaos::new("embedded log and store", Cluster::embedded().await, plan());
    let went = chaos.kills(plan().embedded_kills).await;
    chaos.end("embedded", went).await;
}

/// Verifies that the test detects violations: idempotency keys are forgotten while answers are lost, so that repeated
/// requests take effect again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_destination_forgets_is_seen_to_happen_twice() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut chaos = Chaos::new("a destination that forgets", Cluster::embedded().await, plan());
    let silent = Fault { drop_after_effect: true, share: 0.5, ..Fault::default() };
    chaos.cluster.lab().set_fault("resend", silent).unwrap();
    let went = chaos
        .until("something happens twice", async |cluster| {
            cluster.lab().forget_keys("resend").unwrap();
            let marks = cluster.lab().effects(&Filter::default()).unwrap();
            let mut events = BTreeSet::new();
            let mut mails = marks.iter().filter_map(|entry| Mark::of(entry)).filter(|mark| mark.flow == "mail");
            mails.any(|mark| !mark.replayed && !events.insert(mark.event))
        })
        .await;
    let (cluster, report) = chaos.close(went).await;
    cluster.end().await;
    assert!(report.count(ViolationKind::Twice) > 0 && !report.passed(), "{report}");
    for kind in [ViolationKind::Lost, ViolationKind::Order, ViolationKind::Stuck, ViolationKind::Dead] {
        assert_eq!(report.count(kind), 0, "{report}");
    }
}

/// Description of a timeout: the expected condition and the progress so far.
type Stuck = String;

struct Chaos {
    cluster: Cluster,
    load: Load,
    rng: StdRng,
    course: Course,
    began: Instant,
}

impl Chaos {
    fn new(title: &str, cluster: Cluster, plan: &Plan) -> Self {
        let seed = std::env::var("USHER_CHAOS_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
        log_once(&format!("chaos on {title}: USHER_CHAOS_SEED={seed}"));
        for provider in cluster.lab().providers() {
            cluster.lab().set_faults(provider, faults()).unwrap();
        }
        let load = Load::start(cluster.address(), plan.load, seed);
        let course = Course { title: title.into(), seed, ..Course::default() };
        Self { cluster, load, rng: StdRng::seed_from_u64(seed), course, began: Instant::now() }
    }

    /// Injects the faults, one kind after the other.
    async fn all(&mut self, plan: &Plan) -> Result<(), Stuck> {
        self.kills(plan.kills).await?;
        self.stops(plan.stops).await?;
        self.brokers(plan.brokers).await?;
        self.scalings(plan.scalings).await?;
        self.restarts(plan.restarts).await
    }

    /// Kills random replicas with SIGKILL (`kill -9`); another is started in place of each.
    async fn kills(&mut self, count: usize) -> Result<(), Stuck> {
        for number in 1..=count {
            self.progress().await?;
            let any = self.rng.random_range(0..self.cluster.replicas().len());
            self.cluster.kill(any).await;
            self.struck("kill", number == count).await?;
        }
        Ok(())
    }

    /// Suspends a replica that owns partitions until others have taken them all over, and sometimes until they have
    /// made progress, then resumes it.
    async fn stops(&mut self, count: usize) -> Result<(), Stuck> {
        for number in 1..=count {
            self.progress().await?;
            let mut owning = Vec::new();
            self.until("a replica owns partitions", async |cluster| {
                let owners = cluster.owners().await.unwrap_or_default();
                let pids = cluster.replicas().iter().filter_map(Program::pid);
                owning = pids.filter(|pid| owners.contains(pid)).collect();
                !owning.is_empty()
            })
            .await?;
            let stopped = *owning.choose(&mut self.rng).unwrap();
            let signalled = |cluster: &Cluster, signal: fn(&Program)| {
                cluster.replicas().iter().filter(|replica| replica.pid() == Some(stopped)).for_each(signal);
            };
            signalled(&self.cluster, Program::stop);
            let mut went = self
                .until("what a stopped replica owned is taken over", async |cluster| {
                    cluster.owners().await.is_some_and(|owners| !owners.contains(&stopped))
                })
                .await;
            if went.is_ok() && self.rng.random() {
                went = self.progress().await;
            }
            signalled(&self.cluster, Program::resume);
            went?;
            self.struck("stop", number == count).await?;
        }
        Ok(())
    }

    /// Kills the broker with SIGKILL (`kill -9`) and restarts it at once or after a webhook was refused.
    async fn brokers(&mut self, count: usize) -> Result<(), Stuck> {
        for number in 1..=count {
            self.progress().await?;
            let Some(broker) = self.cluster.broker() else { return Ok(()) };
            broker.kill();
            if self.rng.random() {
                let repeated = self.load.repeated();
                let before = repeated();
                self.until("a webhook is refused for want of a broker", async |_| repeated() > before).await?;
            }
            if let Some(broker) = self.cluster.broker() {
                broker.start().await;
            }
            self.struck("broker", number == count).await?;
        }
        Ok(())
    }

    /// Scales from one replica to three and back.
    async fn scalings(&mut self, count: usize) -> Result<(), Stuck> {
        self.cluster.scale(1).await;
        for number in 1..=count {
            self.progress().await?;
            self.cluster.scale(3).await;
            self.until("three share the work", async |cluster| {
                let Some(owners) = cluster.owners().await else { return false };
                cluster.replicas().iter().all(|replica| replica.pid().is_some_and(|pid| owners.contains(&pid)))
            })
            .await?;
            self.progress().await?;
            self.cluster.scale(1).await;
            self.struck("scaling", number == count).await?;
        }
        self.cluster.scale(2).await;
        Ok(())
    }

    /// Restarts the database, after a fast or an immediate shutdown.
    async fn restarts(&mut self, count: usize) -> Result<(), Stuck> {
        for number in 1..=count {
            self.progress().await?;
            let down = if self.rng.random() { Down::Fast } else { Down::Immediate };
            let Some(postgres) = self.cluster.postgres() else { return Ok(()) };
            tokio::task::block_in_place(|| postgres.restart(down));
            self.struck("database", number == count).await?;
        }
        Ok(())
    }

    /// Records a fault and waits for recovery. A third of the faults are not waited for, except the last of a kind.
    async fn struck(&mut self, blow: &'static str, last: bool) -> Result<(), Stuck> {
        *self.course.blows.entry(blow).or_default() += 1;
        if !last && self.rng.random_ratio(1, 3) {
            return Ok(());
        }
        let began = Instant::now();
        // The expected runs and some later ones must end: old and new work continues.
        let enough = self.load.owed(&EXPECTED) + SOME;
        self.until(&format!("{enough} runs have ended, more than were owed after {blow}"), async |cluster| {
            cluster.ended().await.is_some_and(|(ended, _)| ended >= enough)
        })
        .await?;
        let slowest = self.course.slowest.entry(blow).or_default();
        *slowest = began.elapsed().max(*slowest);
        if last {
            log_once(&format!(
                "  after {} s: {blow}, {} times",
                self.began.elapsed().as_secs(),
                self.course.blows[blow]
            ));
        }
        Ok(())
    }

    /// Waits until some more runs have ended, so that there is work to disturb.
    async fn progress(&mut self) -> Result<(), Stuck> {
        let mut enough = None;
        self.until("some more runs have ended", async |cluster| {
            let Some((ended, _)) = cluster.ended().await else { return false };
            ended >= *enough.get_or_insert(ended + SOME)
        })
        .await
    }

    /// Waits for a condition and meanwhile replaces programs that have exited by themselves.
    async fn until(&mut self, what: &str, mut so: impl AsyncFnMut(&Cluster) -> bool) -> Result<(), Stuck> {
        let began = Instant::now();
        loop {
            self.cluster.mend();
            if so(&self.cluster).await {
                return Ok(());
            }
            if began.elapsed() > RECOVERY_DEADLINE {
                let runs = self.cluster.ended().await;
                return Err(format!("after {RECOVERY_DEADLINE:?} still not: {what}; runs ended and not: {runs:?}"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends the faults and the load, waits until all runs have ended, and creates the report.
    async fn close(self, went: Result<(), Stuck>) -> (Cluster, ChaosReport) {
        let Self { mut cluster, load, mut course, began, .. } = self;
        course.gave_up = went.err();
        for provider in cluster.lab().providers() {
            cluster.lab().end_fault(provider).unwrap();
        }
        let sent = load.end(END_DEADLINE).await.unwrap_or_else(|sent| {
            course.gave_up.get_or_insert("not all that was sent was kept at the end".into());
            sent
        });
        let starts = |kind: &str| EXPECTED.iter().filter(|flow| flow.on.contains(&kind)).count();
        let owed: usize = sent.iter().filter(|sent| sent.acknowledged).map(|sent| starts(&sent.kind)).sum();
        let waiting = Instant::now();
        // The report lists runs that have not ended by the deadline.
        while waiting.elapsed() < END_DEADLINE && !cluster.ended().await.is_some_and(|now| now.0 >= owed && now.1 == 0)
        {
            cluster.mend();
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        course.took = began.elapsed();
        course.ended_by_itself = cluster.ended_by_itself().to_vec();
        let report = ChaosReport::new(course, cluster.ledger(sent).await, &EXPECTED, &[]);
        (cluster, report)
    }

    /// Writes the report to the log and to a file, and panics if the test has not passed.
    async fn end(self, name: &str, went: Result<(), Stuck>) {
        let (cluster, report) = self.close(went).await;
        log_once(&report.to_string());

        let folder = programs().parent().expect("target").join("chaos");
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join(format!("{name}.txt"));
        std::fs::write(&file, report.to_string()).expect("the report is written");
        if !report.passed() {
            let output = folder.join(name);
            let _ = std::fs::remove_dir_all(&output);
            cluster.keep_output(&output).expect("what the programs wrote is kept");
        }
        cluster.end().await;
        assert!(report.passed(), "see {}", file.display());
    }
}
