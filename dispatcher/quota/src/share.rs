//! The division of an account's limit among the replicas that use it: in whole calls, equally among those that have
//! something to send.
//!
//! A replica takes at most what the others have not taken, so that the sum never exceeds the limit, in any order of
//! requests. A replica whose share has shrunk returns the difference with its next request; then others can take it.

use std::time::Duration;

use usher_proto::Timestamp;

/// One in this many calls of a limit that others use up is reserved for urgent flows. A limit below this number has no
/// reserve, which would be a large part of it.
const RESERVE: u32 = 20;
/// Shortest rotation period of the remainder, in ms; twice the period of the limit if that is longer, so that a member that
/// receives a part does not use it before one such period has passed.
const MIN_ROTATION: i64 = 10_000;

/// A process's need for calls to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Demand {
    /// No call waits.
    Idle,
    /// Calls wait, none of them urgent.
    Normal,
    /// An urgent call waits.
    Urgent,
}

/// A process that uses an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaMember {
    /// The process's name, which is unique.
    pub name: String,
    /// The process's need.
    pub demand: Demand,
    /// True if the process serves an urgent flow, which may need calls at any time.
    pub serves_urgent: bool,
    /// Number of calls that the process has taken.
    pub has: u32,
}

/// Returns the number of calls of `limit`, in the period `per`, that the member `name` may take now. `members` are all
/// that are alive.
pub fn share(limit: u32, members: &[QuotaMember], name: &str, now: Timestamp, per: Duration) -> u32 {
    let taken = members.iter().filter(|member| member.name != name).fold(0_u32, |sum, it| sum.saturating_add(it.has));
    fair(limit, members, name, now, per).min(limit.saturating_sub(taken))
}

/// Returns the member's fair share.
fn fair(limit: u32, members: &[QuotaMember], name: &str, now: Timestamp, per: Duration) -> u32 {
    let mut members: Vec<&QuotaMember> = members.iter().collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let length = MIN_ROTATION.max(i64::try_from(2 * per.as_millis()).unwrap_or(i64::MAX));
    let turn = usize::try_from(now.millis() / length).unwrap_or_default();
    let of = |list: &[&QuotaMember], total: u32| {
        list.iter().position(|it| it.name == name).map(|at| part(total, list.len(), at + turn))
    };

    let wanting: Vec<&QuotaMember> = members.iter().copied().filter(|member| member.demand != Demand::Idle).collect();
    if wanting.is_empty() {
        return of(&members, limit).unwrap_or(0);
    }
    let on_call: Vec<&QuotaMember> =
        members.iter().copied().filter(|member| member.demand == Demand::Idle && member.serves_urgent).collect();
    let reserve = if on_call.is_empty() { 0 } else { limit / RESERVE };
    if let Some(part) = of(&on_call, reserve) {
        return part;
    }
    let rest = limit - reserve;
    let urgent: Vec<&QuotaMember> = wanting.iter().copied().filter(|member| member.demand == Demand::Urgent).collect();
    if (rest as usize) < wanting.len() && !urgent.is_empty() {
        // There are fewer calls than members: those with an urgent call come first.
        let others: Vec<&QuotaMember> = wanting.into_iter().filter(|member| member.demand != Demand::Urgent).collect();
        let left = rest.saturating_sub(u32::try_from(urgent.len()).unwrap_or(u32::MAX));
        return of(&urgent, rest - left).or_else(|| of(&others, left)).unwrap_or(0);
    }
    of(&wanting, rest).unwrap_or(0)
}

/// Returns the part at `place` of `parts` nearly equal parts of `total`. The remainder rotates with `place`.
fn part(total: u32, parts: usize, place: usize) -> u32 {
    let count = u32::try_from(parts).unwrap_or(u32::MAX);
    total / count + u32::from(place % parts < (total % count) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(0);
    const SECOND: Duration = Duration::from_secs(1);

    fn member(name: &str, demand: Demand, has: u32) -> QuotaMember {
        QuotaMember { name: name.into(), demand, serves_urgent: false, has }
    }

    /// Lets every member request its share in turn, twice; after that, nothing changes any more.
    fn settled(limit: u32, members: &mut [QuotaMember], now: Timestamp) -> Vec<u32> {
        for _ in 0..2 {
            for at in 0..members.len() {
                let name = members[at].name.clone();
                members[at].has = share(limit, members, &name, now, SECOND);
                assert!(members.iter().map(|member| member.has).sum::<u32>() <= limit, "{members:?}");
            }
        }
        members.iter().map(|member| member.has).collect()
    }

    #[test]
    fn those_that_want_something_share_equally() {
        use Demand::{Idle, Normal};
        let mut members = vec![member("a", Normal, 50), member("b", Normal, 0), member("c", Idle, 0)];
        assert_eq!(settled(50, &mut members, NOW), [25, 25, 0]);
        members[2].demand = Normal;
        assert_eq!(settled(50, &mut members, NOW), [17, 17, 16]);
        members.remove(0);
        assert_eq!(settled(50, &mut members, NOW), [25, 25]);
        members.iter_mut().for_each(|member| member.demand = Idle);
        assert_eq!(settled(50, &mut members, NOW), [25, 25], "idle ones are ready");
    }

    #[test]
    fn a_newcomer_takes_only_what_others_have_given_back() {
        let members = vec![member("a", Demand::Normal, 50), member("b", Demand::Normal, 0)];
        assert_eq!(share(50, &members, "b", NOW, SECOND), 0);
        assert_eq!(share(50, &members, "a", NOW, SECOND), 25);
    }

    #[test]
    fn what_cannot_be_divided_goes_round() {
        let mut members: Vec<QuotaMember> =
            ["a", "b", "c"].into_iter().map(|name| member(name, Demand::Normal, 0)).collect();
        let turns = [0, 10, 20].map(|second| settled(2, &mut members, Timestamp::from_seconds(second)));
        assert_eq!(turns.iter().flatten().sum::<u32>(), 6);
        for at in 0..3 {
            assert_eq!(turns.iter().map(|turn| turn[at]).sum::<u32>(), 2, "{turns:?}");
        }
    }

    #[test]
    fn urgent_mail_comes_first_where_there_is_not_one_call_for_each() {
        let mut members =
            vec![member("a", Demand::Normal, 1), member("b", Demand::Normal, 1), member("c", Demand::Urgent, 0)];
        for second in [0, 10, 20] {
            let shares = settled(2, &mut members, Timestamp::from_seconds(second));
            assert_eq!((shares[2], shares[0] + shares[1]), (1, 1));
        }
    }

    #[test]
    fn a_reserve_waits_for_urgent_flows_while_others_send() {
        let mut members = vec![member("a", Demand::Normal, 0), member("b", Demand::Idle, 0)];
        members[1].serves_urgent = true;
        assert_eq!(settled(50, &mut members, NOW), [48, 2]);
        assert_eq!(settled(10, &mut members, NOW), [10, 0], "a small limit has none");
        members[1].demand = Demand::Urgent;
        assert_eq!(settled(50, &mut members, NOW), [25, 25]);
    }

    /// The sum never exceeds the limit, whatever the members have and however they join, leave and change their needs.
    #[test]
    fn the_sum_never_exceeds_the_limit() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..300 {
            let limit = u32::try_from(1 + random(60)).unwrap_or(1);
            let mut members: Vec<QuotaMember> = Vec::new();
            for step in 0..200_i64 {
                match random(10) {
                    0 => members.push(member(&format!("m{step}"), Demand::Idle, 0)),
                    1 if !members.is_empty() => drop(members.remove(random(members.len() as u64) as usize)),
                    _ if members.is_empty() => {}
                    choice => {
                        let at = random(members.len() as u64) as usize;
                        members[at].demand = [Demand::Idle, Demand::Normal, Demand::Urgent][choice as usize % 3];
                        members[at].serves_urgent = random(2) == 0;
                        let name = members[at].name.clone();
                        members[at].has = share(limit, &members, &name, Timestamp::from_seconds(step), SECOND);
                    }
                }
                assert!(members.iter().map(|member| member.has).sum::<u32>() <= limit, "{limit}: {members:?}");
            }
        }
    }
}
