//! Quotas shared through the store: the processes that use an account, each one's part of its pace, and the calls that
//! its caps have left.

use std::time::Duration;

use usher_proto::Timestamp;
use usher_quota::{
    CAP_RESERVE_DIVISOR, Cap, CapBudget, CapShortage, Demand, Pace, QuotaLease, QuotaMember, QuotaRequest, share,
};
use usher_service::clock;
use usher_sql::{Connection, Database, Dialect, query, query_as};

use super::StoreError;

/// Timeouts of the transaction: a process that is suspended in it must not block the others until their leases end.
const SHORT_TIMEOUT: &str = "SET LOCAL lock_timeout = '1s'; SET LOCAL idle_in_transaction_session_timeout = '1s'";
/// Lock under which one process at a time distributes the shares.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext(current_schema() || '.usher_quota'))::text";
/// Divisor for the calls leased from a cap at a time: at most the remaining calls / (this number x members), but at least one. A process
/// that crashes forfeits the unused calls of its lease.
const PART_OF_CAP: u32 = 4;
/// Largest number of calls leased from a cap at a time.
const MOST_OF_CAP: u32 = 100;

pub(super) async fn grant(
    database: &Database,
    member: &str,
    lease: Duration,
    quota_requests: &[QuotaRequest],
) -> Result<Vec<QuotaLease>, StoreError> {
    // A SQLite file is used by one process only.
    let private = database.dialect == Dialect::Sqlite;
    let nothing_to_write = |quota_request: &QuotaRequest| {
        quota_request.quota.caps.is_empty() || quota_request.short == CapShortage::default()
    };
    if private && quota_requests.iter().all(nothing_to_write) {
        return Ok(quota_requests
            .iter()
            .map(|quota_request| shares(quota_request, member, Vec::new(), clock::now()))
            .collect());
    }
    // Most accounts have no limit. They are only looked up, to see if one was announced to another process.
    let limited: Vec<bool> =
        if private { vec![true; quota_requests.len()] } else { limited(database, quota_requests).await? };
    if !limited.contains(&true) {
        return Ok(vec![QuotaLease::default(); quota_requests.len()]);
    }
    let mut writing = database.write().await?;
    let connection = writing.connection();
    if !private {
        connection.batch(SHORT_TIMEOUT).await?;
        query(LOCK).execute(&mut *connection).await?;
    }
    let (now,): (i64,) = query_as(database.dialect.now()).fetch_one(&mut *connection).await?;
    let now = Timestamp::from_millis(now);
    let mut grants = Vec::with_capacity(quota_requests.len());
    for (quota_request, limited) in quota_requests.iter().zip(limited) {
        if !limited {
            grants.push(QuotaLease::default());
            continue;
        }
        let others = if private { Vec::new() } else { others(connection, &quota_request.account, member, now).await? };
        let members = u32::try_from(others.len() + 1).unwrap_or(u32::MAX);
        let reserve = quota_request.serves_urgent || others.iter().any(|other| other.of_pace.serves_urgent);
        let mut grant = shares(quota_request, member, others, now);
        if !private {
            keep(connection, quota_request, member, &grant, now.plus(lease)).await?;
        }
        lease_from_caps(connection, quota_request, members, reserve, now, &mut grant).await?;
        grants.push(grant);
    }
    writing.commit().await?;
    Ok(grants)
}

/// Returns, for each account, true if it has a limit: configured, announced to this process, or announced to another.
async fn limited(database: &Database, quota_requests: &[QuotaRequest]) -> Result<Vec<bool>, StoreError> {
    let own = |quota_request: &QuotaRequest| {
        !quota_request.quota.is_none() || quota_request.announced.is_some() || quota_request.counts
    };
    if quota_requests.iter().all(own) {
        return Ok(vec![true; quota_requests.len()]);
    }
    // For Postgres only: a SQLite file is used by one process.
    let sql = "SELECT DISTINCT account FROM usher_quota_member \
               WHERE heard > 0 AND expires_at > extract(epoch FROM clock_timestamp()) * 1000";
    let announced: Vec<(String,)> = query_as(sql).fetch_all(database).await?;
    Ok(quota_requests
        .iter()
        .map(|quota_request| own(quota_request) || announced.iter().any(|(account,)| *account == quota_request.account))
        .collect())
}

/// Removes a process that no longer uses any account.
pub(super) async fn leave(database: &Database, member: &str) -> Result<(), StoreError> {
    if database.dialect == Dialect::Sqlite {
        return Ok(());
    }
    query("DELETE FROM usher_quota_member WHERE member = $1").bind(member).execute(database).await?;
    Ok(())
}

/// Another process that uses an account, with its part of the pace and of the concurrent calls.
struct Other {
    of_pace: QuotaMember,
    max_concurrent: u32,
    announced: Option<Pace>,
}

async fn others(
    connection: &mut Connection,
    account: &str,
    member: &str,
    now: Timestamp,
) -> Result<Vec<Other>, StoreError> {
    query("DELETE FROM usher_quota_member WHERE account = $1 AND expires_at <= $2")
        .bind(account)
        .bind(now.millis())
        .execute(&mut *connection)
        .await?;
    let sql = "SELECT member, wants, serves_urgent, pace, at_once, heard, heard_ms FROM usher_quota_member \
               WHERE account = $1 AND member <> $2";
    let rows: Vec<(String, i64, i64, i64, i64, i64, i64)> =
        query_as(sql).bind(account).bind(member).fetch_all(connection).await?;
    let count = |number: i64| u32::try_from(number).unwrap_or_default();
    let other = |(name, demand, serves_urgent, pace, max_concurrent, heard, heard_ms)| {
        let per = Duration::from_millis(u64::try_from(heard_ms).unwrap_or_default());
        let heard = (heard > 0 && !per.is_zero()).then(|| Pace { calls: count(heard), per });
        let demand = match demand {
            0 => Demand::Idle,
            1 => Demand::Normal,
            _ => Demand::Urgent,
        };
        let of_pace = QuotaMember { name, demand, serves_urgent: serves_urgent != 0, has: count(pace) };
        Other { of_pace, max_concurrent: count(max_concurrent), announced: heard }
    };
    Ok(rows.into_iter().map(other).collect())
}

fn shares(quota_request: &QuotaRequest, member: &str, others: Vec<Other>, now: Timestamp) -> QuotaLease {
    let me = QuotaMember {
        name: member.to_owned(),
        demand: quota_request.demand,
        serves_urgent: quota_request.serves_urgent,
        has: 0,
    };
    let quota_pace = pace_of(quota_request, &others);
    let sharers = u32::try_from(others.len() + 1).unwrap_or(u32::MAX);
    let concurrency = others.iter().map(|other| QuotaMember { has: other.max_concurrent, ..other.of_pace.clone() });
    let concurrency: Vec<QuotaMember> = concurrency.chain([me.clone()]).collect();
    let pace: Vec<QuotaMember> = others.into_iter().map(|other| other.of_pace).chain([me]).collect();
    QuotaLease {
        sharers,
        pace: quota_pace.map(|all| (all, share(all.calls, &pace, member, now, all.per))),
        max_concurrent: quota_request
            .quota
            .max_concurrent
            .map_or(0, |all| share(all, &concurrency, member, now, Duration::ZERO)),
        ..QuotaLease::default()
    }
}

/// Returns the slower of two paces.
fn slower(a: Pace, b: Pace) -> Pace {
    if b.rate() < a.rate() { b } else { a }
}

/// Returns the pace that applies: the slowest that the destination has announced to any process. A configured pace
/// applies if it is slower, an assumed one only if none was announced.
fn pace_of(quota_request: &QuotaRequest, others: &[Other]) -> Option<Pace> {
    let announced = others.iter().filter_map(|other| other.announced).chain(quota_request.announced).reduce(slower);
    match (quota_request.quota.pace, announced) {
        (None, announced) => announced,
        (pace, None) => pace,
        (Some(_), announced) if quota_request.assumed => announced,
        (Some(pace), Some(announced)) => Some(slower(pace, announced)),
    }
}

async fn keep(
    connection: &mut Connection,
    quota_request: &QuotaRequest,
    member: &str,
    grant: &QuotaLease,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO usher_quota_member (account, member, wants, serves_urgent, pace, at_once, expires_at, heard, \
                                               heard_ms) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
               ON CONFLICT (account, member) DO UPDATE SET wants = excluded.wants, \
                 serves_urgent = excluded.serves_urgent, pace = excluded.pace, at_once = excluded.at_once, \
                 expires_at = excluded.expires_at, heard = excluded.heard, heard_ms = excluded.heard_ms";
    let heard_ms = quota_request.announced.map_or(0, |heard| i64::try_from(heard.per.as_millis()).unwrap_or(i64::MAX));
    query(sql)
        .bind(&quota_request.account)
        .bind(member)
        .bind(match quota_request.demand {
            Demand::Idle => 0_i64,
            Demand::Normal => 1,
            Demand::Urgent => 2,
        })
        .bind(i64::from(quota_request.serves_urgent))
        .bind(grant.pace.map_or(0, |(_, part)| i64::from(part)))
        // A limit that the process still uses is not given back before the process has received the new one, nor a call
        // before it has ended.
        .bind(i64::from(grant.max_concurrent.max(quota_request.max_concurrent).max(quota_request.under_way)))
        .bind(expires_at.millis())
        .bind(quota_request.announced.map_or(0, |heard| i64::from(heard.calls)))
        .bind(heard_ms)
        .execute(connection)
        .await?;
    Ok(())
}

/// Leases calls under the caps, if the process is short of them.
async fn lease_from_caps(
    connection: &mut Connection,
    quota_request: &QuotaRequest,
    members: u32,
    // True if any of the processes may have urgent calls.
    reserve: bool,
    now: Timestamp,
    grant: &mut QuotaLease,
) -> Result<(), StoreError> {
    if quota_request.quota.caps.is_empty() || quota_request.short == CapShortage::default() {
        return Ok(());
    }
    let mut left = Left::default();
    for cap in &quota_request.quota.caps {
        let (span, end) = cap.span.of(now);
        let row: Option<(i64,)> = query_as("SELECT used FROM usher_quota_used WHERE account = $1 AND span = $2")
            .bind(&quota_request.account)
            .bind(&span)
            .fetch_optional(&mut *connection)
            .await?;
        left.count(*cap, reserve, row.map_or(0, |(used,)| u32::try_from(used).unwrap_or(u32::MAX)), end);
    }
    if quota_request.short.usual {
        grant.usual = left.hand_out(false, members);
    }
    if quota_request.short.urgent {
        grant.urgent = left.hand_out(true, members);
    }
    let calls = grant.usual.calls + grant.urgent.calls;
    if calls == 0 {
        return Ok(());
    }
    for cap in &quota_request.quota.caps {
        let (span, end) = cap.span.of(now);
        let sql = "INSERT INTO usher_quota_used (account, span, used, ends_at) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (account, span) DO UPDATE SET used = usher_quota_used.used + excluded.used";
        query(sql)
            .bind(&quota_request.account)
            .bind(span)
            .bind(i64::from(calls))
            .bind(end.millis())
            .execute(&mut *connection)
            .await?;
    }
    query("DELETE FROM usher_quota_used WHERE account = $1 AND ends_at <= $2")
        .bind(&quota_request.account)
        .bind(now.millis())
        .execute(connection)
        .await?;
    Ok(())
}

/// Remaining calls of all caps together.
#[derive(Debug, Default)]
struct Left {
    /// For each cap: calls left for usual flows, calls left for urgent flows, and the time of its end.
    caps: Vec<(u32, u32, Timestamp)>,
    handed_out: u32,
}

impl Left {
    fn count(&mut self, cap: Cap, reserve: bool, used: u32, end: Timestamp) {
        let usual = if reserve { cap.calls - cap.calls / CAP_RESERVE_DIVISOR } else { cap.calls };
        self.caps.push((usual.saturating_sub(used), cap.calls.saturating_sub(used), end));
    }

    fn hand_out(&mut self, urgent: bool, members: u32) -> CapBudget {
        let left = |(usual, all, end): &(u32, u32, Timestamp)| {
            ((if urgent { *all } else { *usual }).saturating_sub(self.handed_out), *end)
        };
        let Some(scarcest) = self.caps.iter().map(left).min_by_key(|(left, _)| *left) else {
            return CapBudget::default();
        };
        if scarcest.0 == 0 {
            // If several caps are used up, no call is left until the last of them starts again.
            let used_up = self.caps.iter().map(left).filter(|(left, _)| *left == 0).map(|(_, end)| end);
            return CapBudget { none_before: used_up.max(), ..CapBudget::default() };
        }
        let calls = (scarcest.0 / PART_OF_CAP.saturating_mul(members)).clamp(1, MOST_OF_CAP);
        self.handed_out += calls;
        CapBudget { calls, until: self.caps.iter().map(|(_, _, end)| *end).min(), none_before: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota_request(quota: &str, assumed: bool) -> QuotaRequest {
        QuotaRequest {
            account: "resend".into(),
            quota: quota.parse().expect("a quota"),
            demand: Demand::Normal,
            serves_urgent: false,
            max_concurrent: 0,
            under_way: 0,
            announced: None,
            counts: false,
            assumed,
            short: CapShortage::default(),
        }
    }

    #[test]
    fn a_destinations_own_word_counts_where_ours_is_assumed_and_only_lowers_what_is_configured() {
        let heard = |calls| Some(Pace { calls, per: Duration::from_secs(1) });
        let counts = |quota, assumed, own, others: Option<Pace>| {
            let of_pace = QuotaMember { name: "b".into(), demand: Demand::Normal, serves_urgent: false, has: 0 };
            let other = Other { of_pace, max_concurrent: 0, announced: others };
            pace_of(&QuotaRequest { announced: own, ..quota_request(quota, assumed) }, &[other]).map(|pace| pace.calls)
        };
        assert_eq!(counts("2/s", true, heard(10), None), Some(10));
        assert_eq!(counts("2/s", true, None, heard(10)), Some(10), "who has not heard it goes by what others have");
        assert_eq!(counts("20/s", true, heard(10), None), Some(10));
        assert_eq!(counts("2/s", false, heard(10), None), Some(2));
        assert_eq!(counts("20/s", false, None, heard(10)), Some(10));
        assert_eq!(counts("none", false, heard(20), heard(10)), Some(10), "a limit need not be configured");
        assert_eq!(counts("none", false, None, heard(10)), Some(10));
        assert_eq!(counts("none", false, None, None), None);
    }
    use usher_quota::Span;

    const DAY: Timestamp = Timestamp::from_seconds(86_400);
    const MONTH: Timestamp = Timestamp::from_seconds(30 * 86_400);

    fn left(used: u32) -> Left {
        let mut left = Left::default();
        left.count(Cap { calls: 100, span: Span::Day }, true, used, DAY);
        left.count(Cap { calls: 1_000, span: Span::Month }, true, 0, MONTH);
        left
    }

    #[test]
    fn calls_are_handed_out_in_parts_that_get_smaller() {
        assert_eq!(left(0).hand_out(false, 1), CapBudget { calls: 22, until: Some(DAY), none_before: None });
        assert_eq!(left(0).hand_out(false, 3).calls, 7);
        assert_eq!(left(89).hand_out(false, 3).calls, 1);
    }

    #[test]
    fn the_last_tenth_is_for_urgent_flows() {
        let none = CapBudget { calls: 0, until: None, none_before: Some(DAY) };
        assert_eq!(left(90).hand_out(false, 1), none);
        assert_eq!(left(90).hand_out(true, 1).calls, 2);
        assert_eq!(left(100).hand_out(true, 1), none);
    }

    #[test]
    fn what_is_handed_out_to_one_is_not_there_for_the_other() {
        let mut left = left(99);
        assert_eq!(left.hand_out(true, 1).calls, 1);
        assert_eq!(left.hand_out(true, 1).calls, 0);
    }
}
