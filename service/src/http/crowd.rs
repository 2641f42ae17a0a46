//! The connections of a server, and the choice of the one that is evicted when there are too many. Does no I/O; the
//! time is a parameter.
//!
//! A connection either waits for its client (for headers, for the rest of a body, or for its response to be read) or
//! has a request in flight. Only a waiting connection can be evicted. A stalled connection costs its client nothing, so
//! a new connection is never refused. Instead, the oldest waiting connection of the client with the most waiting
//! connections is evicted. A client that sends its request at once waits only briefly, so its connection is never the
//! oldest, even if it shares its address with stalled ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Time for a body to arrive, measured from the end of the request's headers.
pub(super) const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Time without progress in writing a response, because the client does not read.
pub(super) const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Limits of a server. One client may use half of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct CrowdLimits {
    /// Open connections.
    pub(super) connections: usize,
    /// Total bytes of bodies that are not complete.
    pub(super) body_bytes: usize,
}

/// A client: an IPv4 address, or an IPv6 network of 64 bits, which is the size that one subscriber gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ClientAddress(IpAddr);

impl ClientAddress {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            v4 @ IpAddr::V4(_) => v4,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        })
    }
}

/// Connections and bytes of one client.
#[derive(Default)]
struct ClientUsage {
    connections: usize,
    body_bytes: usize,
    /// Connections of the client that wait for it, oldest first.
    waiting: BTreeSet<(Instant, u64)>,
}

/// State of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The connection waits for the headers of a request, or its last response is being sent.
    Head,
    /// The connection waits for the rest of a request's body.
    Body,
    /// The request is complete and in flight.
    Work,
}

/// One connection.
struct Connection {
    peer: ClientAddress,
    phase: Phase,
    since: Instant,
    /// Time since which nothing could be written to the client. `None` while the client reads.
    stuck: Option<Instant>,
    body_bytes: usize,
    evicted: CancellationToken,
}

/// All connections of a server.
pub(super) struct ConnectionTable {
    limits: CrowdLimits,
    next: u64,
    places: BTreeMap<u64, Connection>,
    peers: HashMap<ClientAddress, ClientUsage>,
    body_bytes: usize,
    evictions: u64,
}

impl ConnectionTable {
    pub(super) fn new(limits: CrowdLimits) -> Self {
        Self { limits, next: 0, places: BTreeMap::new(), peers: HashMap::new(), body_bytes: 0, evictions: 0 }
    }

    /// Adds a connection. Returns its number and the token that is cancelled when it is evicted. If its client then has
    /// more than half of the allowed connections, the client's oldest waiting one is evicted.
    pub(super) fn enter(&mut self, address: IpAddr, now: Instant) -> (u64, CancellationToken) {
        let peer = ClientAddress::of(address);
        let id = self.next;
        let evicted = CancellationToken::new();
        if self.peers.get(&peer).is_some_and(|share| share.connections >= (self.limits.connections / 2).max(1)) {
            self.evict_oldest_of(peer, |_| true);
        }
        self.next += 1;
        let place =
            Connection { peer, phase: Phase::Head, since: now, stuck: None, body_bytes: 0, evicted: evicted.clone() };
        self.places.insert(id, place);
        let share = self.peers.entry(peer).or_default();
        share.connections += 1;
        share.waiting.insert((now, id));
        (id, evicted)
    }

    /// Removes a connection that has ended.
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

    /// Sets the phase of a connection. The bytes of its body are no longer counted.
    pub(super) fn set_phase(&mut self, id: u64, phase: Phase, now: Instant) {
        let Some(place) = self.places.get_mut(&id) else { return };
        let Some(share) = self.peers.get_mut(&place.peer) else { return };
        share.waiting.remove(&(place.since, id));
        share.body_bytes -= place.body_bytes;
        self.body_bytes -= place.body_bytes;
        place.phase = phase;
        place.since = now;
        place.body_bytes = 0;
        if phase != Phase::Work && !place.evicted.is_cancelled() {
            share.waiting.insert((now, id));
        }
    }

    /// Counts received bytes of a connection's body. Above a limit, the oldest incomplete bodies of the client with the
    /// most bytes are evicted.
    pub(super) fn received(&mut self, id: u64, bytes: usize) {
        let Some(place) = self.places.get_mut(&id).filter(|place| place.phase == Phase::Body) else { return };
        let peer = place.peer;
        place.body_bytes += bytes;
        self.body_bytes += bytes;
        if let Some(share) = self.peers.get_mut(&peer) {
            share.body_bytes += bytes;
        }
        let holds = |place: &Connection| place.body_bytes > 0;
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

    /// Sets the time since which nothing can be written to a connection's client; `None` when it reads again.
    pub(super) fn set_stuck(&mut self, id: u64, stuck: Option<Instant>) {
        if let Some(place) = self.places.get_mut(&id) {
            place.stuck = stuck;
        }
    }

    /// Evicts the oldest waiting connection of the client with the most waiting connections. Returns false
    /// if none waits.
    pub(super) fn make_room(&mut self) -> bool {
        let heaviest = self.peers.iter().max_by_key(|(_, share)| share.waiting.len()).map(|(peer, _)| *peer);
        heaviest.is_some_and(|peer| self.evict_oldest_of(peer, |_| true))
    }

    /// Evicts connections whose deadline has passed.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.evict_all(|place| {
            let late = |since: Instant, deadline| now.saturating_duration_since(since) >= deadline;
            let late_body = place.phase == Phase::Body && late(place.since, BODY_DEADLINE);
            late_body || place.stuck.is_some_and(|since| late(since, WRITE_DEADLINE))
        });
    }

    /// Evicts connections that have waited for their client for `patience`, while the server stops.
    pub(super) fn dismiss(&mut self, now: Instant, patience: Duration) {
        let long = |since: Instant| now.saturating_duration_since(since) >= patience;
        self.evict_all(|place| (place.phase != Phase::Work && long(place.since)) || place.stuck.is_some_and(long));
    }

    /// Returns true if there is no connection, and no eviction that was not taken.
    pub(super) fn is_quiet(&self) -> bool {
        self.places.is_empty() && self.evictions == 0
    }

    /// Returns the number of evictions since the last call.
    pub(super) fn take_evictions(&mut self) -> u64 {
        std::mem::take(&mut self.evictions)
    }

    fn evict_all(&mut self, which: impl Fn(&Connection) -> bool) {
        let found: Vec<u64> = self.places.iter().filter(|(_, place)| which(place)).map(|(id, _)| *id).collect();
        found.into_iter().for_each(|id| self.evict(id));
    }

    fn evict_oldest_of(&mut self, peer: ClientAddress, which: impl Fn(&Connection) -> bool) -> bool {
        let Some(share) = self.peers.get(&peer) else { return false };
        let oldest = share.waiting.iter().map(|(_, id)| *id).find(|id| self.places.get(id).is_some_and(&which));
        oldest.map(|id| self.evict(id)).is_some()
    }

    /// Cancels a connection's token. Its bytes are no longer counted; the connection itself is counted until it leaves.
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
