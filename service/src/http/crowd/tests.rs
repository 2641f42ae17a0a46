//! Tests of the choice of evicted connections.

use super::*;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn there(last: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, last])
}

/// A crowd with limits, a clock, and the tokens of all connections by number.
struct Scene {
    crowd: ConnectionTable,
    now: Instant,
    tokens: BTreeMap<u64, CancellationToken>,
}

impl Scene {
    fn with(connections: usize, body_bytes: usize) -> Self {
        let crowd = ConnectionTable::new(CrowdLimits { connections, body_bytes });
        Self { crowd, now: Instant::now(), tokens: BTreeMap::new() }
    }

    /// Adds a connection, one millisecond after the previous one.
    fn enter(&mut self, address: IpAddr) -> u64 {
        self.now += Duration::from_millis(1);
        let (id, evicted) = self.crowd.enter(address, self.now);
        self.tokens.insert(id, evicted);
        id
    }

    /// Adds a connection that has sent headers and `bytes` bytes of a body.
    fn sending(&mut self, address: IpAddr, bytes: usize) -> u64 {
        let id = self.enter(address);
        self.crowd.set_phase(id, Phase::Body, self.now);
        self.crowd.received(id, bytes);
        id
    }

    fn evicted(&self) -> Vec<u64> {
        self.tokens.iter().filter(|(_, token)| token.is_cancelled()).map(|(id, _)| *id).collect()
    }
}

#[test]
fn the_oldest_that_waits_makes_room_and_who_is_worked_on_never_does() {
    let mut scene = Scene::with(100, 1000);
    let worked_on = scene.enter(HERE);
    let stalled = scene.enter(HERE);
    let newcomer = scene.enter(HERE);
    scene.crowd.set_phase(worked_on, Phase::Work, scene.now);
    assert!(scene.crowd.make_room());
    assert_eq!(scene.evicted(), [stalled]);
    assert!(scene.crowd.make_room());
    assert_eq!(scene.evicted(), [stalled, newcomer]);
    assert!(!scene.crowd.make_room(), "nobody waits");
    assert_eq!(scene.crowd.take_evictions(), 2);
}

#[test]
fn who_holds_most_loses_first_and_the_others_keep_their_oldest() {
    let mut scene = Scene::with(100, 1000);
    let patient = scene.enter(there(1));
    let crowd: Vec<u64> = (0..5).map(|_| scene.enter(HERE)).collect();
    assert!(scene.crowd.make_room());
    assert_eq!(scene.evicted(), [crowd[0]]);
    assert!(!scene.tokens[&patient].is_cancelled());
}

#[test]
fn one_client_has_half_of_the_connections_and_pushes_out_its_own() {
    let mut scene = Scene::with(10, 1000);
    let other = scene.enter(there(1));
    let ids: Vec<u64> = (0..8).map(|_| scene.enter(HERE)).collect();
    assert_eq!(scene.evicted(), &ids[..3]);
    assert!(!scene.tokens[&other].is_cancelled());
}

#[test]
fn addresses_of_one_network_are_one_client() {
    let mut scene = Scene::with(4, 1000);
    let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 1, 2, 0, 0, 0, last]);
    let first = scene.enter(v6(1));
    scene.enter(v6(2));
    scene.enter(v6(3));
    assert_eq!(scene.evicted(), [first]);
    let mapped = "::ffff:192.0.2.1".parse().expect("an address");
    assert_eq!(ClientAddress::of(mapped), ClientAddress::of(HERE));
}

#[test]
fn unfinished_bodies_are_bounded_and_the_oldest_goes() {
    let mut scene = Scene::with(100, 1000);
    let old = scene.sending(HERE, 300);
    let idle = scene.enter(HERE);
    let young = scene.sending(HERE, 200);
    assert_eq!(scene.evicted(), [0; 0], "half of it is one client's");
    scene.crowd.received(young, 1);
    assert_eq!(scene.evicted(), [old], "not the idle one, which holds nothing");
    for last in 1..=3 {
        scene.sending(there(last), 399);
    }
    assert_eq!(scene.evicted().len(), 2, "all together hold no more than a thousand");
    assert!(!scene.tokens[&young].is_cancelled() && !scene.tokens[&idle].is_cancelled());
}

#[test]
fn what_has_come_whole_or_has_ended_holds_nothing() {
    let mut scene = Scene::with(100, 1000);
    for _ in 0..20 {
        let id = scene.sending(HERE, 400);
        scene.crowd.set_phase(id, Phase::Work, scene.now);
        let id = scene.sending(HERE, 400);
        scene.crowd.leave(id);
    }
    assert_eq!(scene.evicted(), [0; 0]);
    assert_eq!(scene.crowd.body_bytes, 0);
    (0..40).for_each(|id| scene.crowd.leave(id));
    assert!(scene.crowd.places.is_empty() && scene.crowd.peers.is_empty());
}

#[test]
fn deadlines_are_for_bodies_and_for_answers_that_are_not_read() {
    let mut scene = Scene::with(100, 1000);
    let idle = scene.enter(HERE);
    let slow = scene.sending(HERE, 1);
    let deaf = scene.enter(HERE);
    let busy = scene.enter(HERE);
    scene.crowd.set_stuck(deaf, Some(scene.now));
    scene.crowd.set_phase(busy, Phase::Work, scene.now);
    scene.crowd.sweep(scene.now + Duration::from_secs(9));
    assert_eq!(scene.evicted(), [0; 0]);
    scene.crowd.sweep(scene.now + Duration::from_secs(10));
    assert_eq!(scene.evicted(), [slow, deaf]);
    scene.crowd.dismiss(scene.now + Duration::from_secs(10), Duration::from_secs(1));
    assert_eq!(scene.evicted(), [idle, slow, deaf], "who is worked on is not dismissed");
    assert!(!scene.tokens[&busy].is_cancelled());
}
