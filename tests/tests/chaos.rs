//! Everything that may break is broken, again and again, under a load that goes on, with destinations that are never quite
//! well; and in the end the books are checked: nothing lost, nothing twice, in order, everything ended.
//!
//! A short one is run with the other tests. `just chaos` runs the full one, `USHER_CHAOS_SEED` repeats its choices.
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
use usher_tests::checker::Kind;
use usher_tests::cluster::Cluster;
use usher_tests::ledger::Mark;
use usher_tests::load::{Load, ParamType};
use usher_tests::postgres::Down;
use usher_tests::program::{Program, programs};
use usher_tests::report::{Course, Report};

/// They take the whole machine, each by itself.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// How long it may take until as much has ended as was owed at a blow.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(180);
/// How long the end may take: all that was begun is kept, and has ended.
const END_DEADLINE: Duration = Duration::from_secs(300);
/// So many runs show that work goes on.
const SOME: usize = 20;
/// How often to look. What is looked for decides when to go on.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How many blows of each kind.
struct Plan {
    kills: usize,
    stops: usize,
    brokers: usize,
    scalings: usize,
    restarts: usize,
    embedded_kills: usize,
    load: ParamType,
}

const FULL: Plan = Plan {
    kills: 50,
    stops: 20,
    brokers: 20,
    scalings: 10,
    restarts: 5,
    embedded_kills: 50,
    load: ParamType { rate: 25, users: 200 },
};
const SHORT: Plan = Plan {
    kills: 3,
    stops: 1,
    brokers: 1,
    scalings: 1,
    restarts: 1,
    embedded_kills: 8,
    load: ParamType { rate: 20, users: 60 },
};

fn plan() -> &'static Plan {
    match std::env::var("USHER_CHAOS").as_deref() {
        Ok("full") => &FULL,
        _ => &SHORT,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_and_postgres() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some(cluster) = Cluster::real(3).await else { return };
    let mut chaos = Chaos::new("Kafka and Postgres", cluster, plan());
    let went = chaos.all(plan()).await;
    chaos.end("kafka", went).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut chaos = Chaos::new("embedded log and store", Cluster::embedded().await, plan());
    let went = chaos.kills(plan().embedded_kills).await;
    chaos.end("embedded", went).await;
}

/// That a violation would be seen: keys are forgotten while answers are lost, so repeated requests have their effect again.
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
    assert!(report.count(Kind::Twice) > 0 && !report.passed(), "{report}");
    for kind in [Kind::Lost, Kind::Order, Kind::Stuck, Kind::Dead] {
        assert_eq!(report.count(kind), 0, "{report}");
    }
}

/// It took too long: what was waited for, and how far it had come.
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

    /// One kind of blow after the other.
    async fn all(&mut self, plan: &Plan) -> Result<(), Stuck> {
        self.kills(plan.kills).await?;
        self.stops(plan.stops).await?;
        self.brokers(plan.brokers).await?;
        self.scalings(plan.scalings).await?;
        self.restarts(plan.restarts).await
    }

    /// `kill -9` of any replica; another starts in its place.
    async fn kills(&mut self, count: usize) -> Result<(), Stuck> {
        for number in 1..=count {
            self.progress().await?;
            let any = self.rng.random_range(0..self.cluster.replicas().len());
            self.cluster.kill(any).await;
            self.struck("kill", number == count).await?;
        }
        Ok(())
    }

    /// A replica that has work stands still until others have all of it, or have done some of it, and wakes up.
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

    /// `kill -9` of the broker; it comes back at once, or after the load has met its absence.
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

    /// From one replica to three and back.
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

    /// The database goes down, one way or the other, and comes back.
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

    /// A blow was struck. Sometimes the next one comes before this one is got over; never after the last of a kind.
    async fn struck(&mut self, blow: &'static str, last: bool) -> Result<(), Stuck> {
        *self.course.blows.entry(blow).or_default() += 1;
        if !last && self.rng.random_ratio(1, 3) {
            return Ok(());
        }
        let began = Instant::now();
        // What was owed, and some of what has come since: old and new work goes on.
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

    /// Some more runs have ended: there is work to disturb.
    async fn progress(&mut self) -> Result<(), Stuck> {
        let mut enough = None;
        self.until("some more runs have ended", async |cluster| {
            let Some((ended, _)) = cluster.ended().await else { return false };
            ended >= *enough.get_or_insert(ended + SOME)
        })
        .await
    }

    /// Waits for something, and meanwhile replaces what has ended by itself.
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

    /// The destinations are well again, the load ends, everything comes to its end, and the books are closed.
    async fn close(self, went: Result<(), Stuck>) -> (Cluster, Report) {
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
        // What has not ended by the deadline is told by the report.
        while waiting.elapsed() < END_DEADLINE && !cluster.ended().await.is_some_and(|now| now.0 >= owed && now.1 == 0)
        {
            cluster.mend();
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        course.took = began.elapsed();
        course.ended_by_itself = cluster.ended_by_itself().to_vec();
        let report = Report::new(course, cluster.ledger(sent).await, &EXPECTED, &[]);
        (cluster, report)
    }

    /// Closes the books, shows and keeps what they log_once, and fails if it is not good.
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
