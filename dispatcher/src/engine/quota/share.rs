//! How the replicas that use an account share its limit: in whole calls, equally among those that have something to send.
//!
//! Nobody takes more than what the others have not taken, so that the sum never exceeds the limit, whoever asks when. What
//! somebody should have less of, he gives back when he asks next; then others can take it.

use std::time::Duration;

use usher_proto::Timestamp;

/// What is left to urgent flows of a limit that others use up: one call in so many. Below that there is no reserve: it would
/// be a large part of a small limit.
const RESERVE: u32 = 20;
/// How long what cannot be divided stays with the same members, in milliseconds; twice the time that the limit is for, where
/// that is longer: who gets it does not use it before that time is over once.
const TURN: i64 = 10_000;

/// Need of a process for calls to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Demand {
    /// Idle waits.
    Idle,
    /// Calls wait, none of them urgent.
    Normal,
    /// An urgent call waits.
    Urgent,
}

/// A process that uses an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, unlike all others'.
    pub name: String,
    /// What it demand.
    pub demand: Demand,
    /// Whether an urgent flow of its may want something at any time.
    pub serves_urgent: bool,
    /// What it has.
    pub has: u32,
}

/// How much of `limit`, calls in the time `per`, one of the members may take now. `members` are all that are alive.
pub fn share(limit: u32, members: &[Member], name: &str, now: Timestamp, per: Duration) -> u32 {
    let taken = members.iter().filter(|member| member.name != name).fold(0_u32, |sum, it| sum.saturating_add(it.has));
    fair(limit, members, name, now, per).min(limit.saturating_sub(taken))
}

/// What it should have.
fn fair(limit: u32, members: &[Member], name: &str, now: Timestamp, per: Duration) -> u32 {
    let mut members: Vec<&Member> = members.iter().collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let length = TURN.max(i64::try_from(2 * per.as_millis()).unwrap_or(i64::MAX));
    let turn = usize::try_from(now.millis() / length).unwrap_or_default();
    let of = |list: &[&Member], total: u32| {
        list.iter().position(|it| it.name == name).map(|at| part(total, list.len(), at + turn))
    };

    let wanting: Vec<&Member> = members.iter().copied().filter(|member| member.demand != Demand::Idle).collect();
    if wanting.is_empty() {
        return of(&members, limit).unwrap_or(0);
    }
    let on_call: Vec<&Member> =
        members.iter().copied().filter(|member| member.demand == Demand::Idle && member.serves_urgent).collect();
    let reserve = if on_call.is_empty() { 0 } else { limit / RESERVE };
    if let Some(part) = of(&on_call, reserve) {
        return part;
    }
    let rest = limit - reserve;
    let urgent: Vec<&Member> = wanting.iter().copied().filter(|member| member.demand == Demand::Urgent).collect();
    if (rest as usize) < wanting.len() && !urgent.is_empty() {
        // There is not one call for each: those with something urgent come first.
        let others: Vec<&Member> = wanting.into_iter().filter(|member| member.demand != Demand::Urgent).collect();
        let left = rest.saturating_sub(u32::try_from(urgent.len()).unwrap_or(u32::MAX));
        return of(&urgent, rest - left).or_else(|| of(&others, left)).unwrap_or(0);
    }
    of(&wanting, rest).unwrap_or(0)
}

/// One of `parts` nearly equal parts of `total`. The odd ones go round.
fn part(total: u32, parts: usize, place: usize) -> u32 {
    let count = u32::try_from(parts).unwrap_or(u32::MAX);
    total / count + u32::from(place % parts < (total % count) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(0);
    const SECOND: Duration = Duration::from_secs(1);

    fn member(name: &str, demand: Demand, has: u32) -> Member {
        Member { name: name.into(), demand, serves_urgent: false, has }
    }

    /// Everybody asks in turn, twice; then nothing changes any more.
    fn settled(limit: u32, members: &mut [Member], now: Timestamp) -> Vec<u32> {
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
        let mut members: Vec<Member> =
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

    /// Whatever the others have and whoever comes, goes and changes his mind: never more than the limit.
    #[test]
    fn the_sum_never_exceeds_the_limit() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..300 {
            let limit = u32::try_from(1 + random(60)).unwrap_or(1);
            let mut members: Vec<Member> = Vec::new();
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
