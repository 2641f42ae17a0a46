//! The connections of a server, and which of them is evicted when there is no room. Does no I/O; the time is a parameter.
//!
//! A connection either waits for its client (for a head, for the rest of a body, for its answer to be read) or has a request
//! under way. Only a waiting connection can be evicted. A stalled connection costs its client nothing, so a newcomer is
//! never refused: the oldest waiting connection is evicted instead, of the client that holds most. A client that sends its
//! request at once waits only for moments and is never the oldest, even where it shares its address with stalled ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Time for a body to arrive, from its request's head on.
pub(super) const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Time without progress in which an answer cannot be written because its client does not read.
pub(super) const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Limits of a server. One client may hold half of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections open.
    pub(super) connections: usize,
    /// Bytes of bodies that have not arrived whole.
    pub(super) body_bytes: usize,
}

/// A client: an IPv4 address, or an IPv6 network of 64 bits, which is what one subscriber gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Peer(IpAddr);

impl Peer {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        })
    }
}

/// Connections and bytes held by one client.
#[derive(Default)]
struct Share {
    connections: usize,
    body_bytes: usize,
    /// Its connections that wait for it, oldest first.
    waiting: BTreeSet<(Instant, u64)>,
}

/// State of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The head of a request is waited for, or the last answer is on its way.
    Head,
    /// The rest of a request's body is waited for.
    Body,
    /// The request is here and is being answered.
    Work,
}

struct Place {
    peer: Peer,
    phase: Phase,
    since: Instant,
    /// Since when nothing could be written to the client.
    stuck: Option<Instant>,
    body_bytes: usize,
    evicted: CancellationToken,
}

/// All connections of a server.
pub(super) struct Crowd {
    limits: Limits,
    next: u64,
    places: BTreeMap<u64, Place>,
    peers: HashMap<Peer, Share>,
    body_bytes: usize,
    evictions: u64,
}

impl Crowd {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, next: 0, places: BTreeMap::new(), peers: HashMap::new(), body_bytes: 0, evictions: 0 }
    }

    /// Adds a connection: its number, and the token that is cancelled when it is evicted. A client that has more than its
    /// half of all connections loses its own oldest.
    pub(super) fn enter(&mut self, address: IpAddr, now: Instant) -> (u64, CancellationToken) {
        let (peer, id, evicted) = (Peer::of(address), self.next, CancellationToken::new());
        if self.peers.get(&peer).is_some_and(|share| share.connections >= (self.limits.connections / 2).max(1)) {
            self.evict_oldest_of(peer, |_| true);
        }
        self.next += 1;
        let place =
            Place { peer, phase: Phase::Head, since: now, stuck: None, body_bytes: 0, evicted: evicted.clone() };
        self.places.insert(id, place);
        let share = self.peers.entry(peer).or_default();
        share.connections += 1;
        share.waiting.insert((now, id));
        (id, evicted)
    }

    /// A connection has ended.
    pub(super) fn leave(&mut self, id: u64) {
        let Some(place) = self.places.remove(&id) else { return };
        self.body_bytes -= place.body_bytes;
        if let Some(share) = self.peers.get_mut(&place.peer) {
            share.connections -= 1;
            share.body_bytes -= place.body_bytes;
            share.waiting.remove(&(place.since, id));
            if share.connections == 0 {
                self.peers.remove(&place.peer);
            }
        }
    }

    /// Moves a connection to a phase. Bytes of its body are no longer counted.
    pub(super) fn set_phase(&mut self, id: u64, phase: Phase, now: Instant) {
        let Some(place) = self.places.get_mut(&id) else { return };
        let Some(share) = self.peers.get_mut(&place.peer) else { return };
        share.waiting.remove(&(place.since, id));
        share.body_bytes -= place.body_bytes;
        self.body_bytes -= place.body_bytes;
        (place.phase, place.since, place.body_bytes) = (phase, now, 0);
        if phase != Phase::Work && !place.evicted.is_cancelled() {
            share.waiting.insert((now, id));
        }
    }

    /// Counts bytes of a connection's body. Beyond a limit the oldest unfinished bodies are evicted, of the client that holds
    /// most bytes.
    pub(super) fn received(&mut self, id: u64, bytes: usize) {
        let Some(place) = self.places.get_mut(&id).filter(|place| place.phase == Phase::Body) else { return };
        let peer = place.peer;
        place.body_bytes += bytes;
        self.body_bytes += bytes;
        if let Some(share) = self.peers.get_mut(&peer) {
            share.body_bytes += bytes;
        }
        let holds = |place: &Place| place.body_bytes > 0;
        while self.peers.get(&peer).is_some_and(|share| share.body_bytes > self.limits.body_bytes / 2) {
            if !self.evict_oldest_of(peer, holds) {
                break;
            }
        }
        while self.body_bytes > self.limits.body_bytes {
            let heaviest = self.peers.iter().max_by_key(|(_, share)| share.body_bytes).map(|(peer, _)| *peer);
            if !heaviest.is_some_and(|peer| self.evict_oldest_of(peer, holds)) {
                break;
            }
        }
    }

    /// Notes since when nothing can be written to a connection's client; `None` when it reads again.
    pub(super) fn set_stuck(&mut self, id: u64, stuck: Option<Instant>) {
        if let Some(place) = self.places.get_mut(&id) {
            place.stuck = stuck;
        }
    }

    /// Evicts the oldest waiting connection, of the client that has most of them waiting. False where none waits.
    pub(super) fn make_room(&mut self) -> bool {
        let heaviest = self.peers.iter().max_by_key(|(_, share)| share.waiting.len()).map(|(peer, _)| *peer);
        heaviest.is_some_and(|peer| self.evict_oldest_of(peer, |_| true))
    }

    /// Evicts connections past a deadline.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.evict_all(|place| {
            let late = |since: Instant, deadline| now.saturating_duration_since(since) >= deadline;
            let late_body = place.phase == Phase::Body && late(place.since, BODY_DEADLINE);
            late_body || place.stuck.is_some_and(|since| late(since, WRITE_DEADLINE))
        });
    }

    /// For a server that stops: evicts connections that have waited for their client for `patience`.
    pub(super) fn dismiss(&mut self, now: Instant, patience: Duration) {
        let long = |since: Instant| now.saturating_duration_since(since) >= patience;
        self.evict_all(|place| (place.phase != Phase::Work && long(place.since)) || place.stuck.is_some_and(long));
    }

    /// Evictions since the last call.
    pub(super) fn take_evictions(&mut self) -> u64 {
        std::mem::take(&mut self.evictions)
    }

    fn evict_all(&mut self, which: impl Fn(&Place) -> bool) {
        let found: Vec<u64> = self.places.iter().filter(|(_, place)| which(place)).map(|(id, _)| *id).collect();
        found.into_iter().for_each(|id| self.evict(id));
    }

    fn evict_oldest_of(&mut self, peer: Peer, which: impl Fn(&Place) -> bool) -> bool {
        let Some(share) = self.peers.get(&peer) else { return false };
        let oldest = share.waiting.iter().map(|(_, id)| *id).find(|id| self.places.get(id).is_some_and(&which));
        oldest.map(|id| self.evict(id)).is_some()
    }

    /// Cancels a connection's token. Its bytes are no longer counted; the connection is, until it leaves.
    fn evict(&mut self, id: u64) {
        let Some(place) = self.places.get_mut(&id).filter(|place| !place.evicted.is_cancelled()) else { return };
        place.evicted.cancel();
        self.evictions += 1;
        self.body_bytes -= place.body_bytes;
        if let Some(share) = self.peers.get_mut(&place.peer) {
            share.body_bytes -= place.body_bytes;
            share.waiting.remove(&(place.since, id));
        }
        place.body_bytes = 0;
    }
}

#[cfg(test)]
mod tests;
