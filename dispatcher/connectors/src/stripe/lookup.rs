//! Finds created objects, and the customers with certain metadata.
//!
//! Facts (docs.stripe.com, search and list): a list includes the last write. The search index follows within a minute,
//! during an outage within an hour, and is not available at all in India; so it is never the only source.

use std::collections::BTreeMap;

use serde_json::Value;
use usher_engine::{Cause, Outcome};
use usher_service::clock;

use super::classify::created;
use super::request::{Customers, Make};
use super::{MARK, Stripe};
use crate::path::Path;
use crate::{CallGate, Lookup};

/// Largest delay of the search index, in seconds.
const INDEX_LAG: i64 = 3600;
/// Largest difference between Stripe's clock and the local one, in seconds.
const SKEW: i64 = 300;

impl Stripe {
    /// Looks up the object that was requested under this key, by the mark that it carries. Reports it as absent only
    /// after reading the list to its end.
    pub(super) async fn look_up_made(&self, make: &Make, key: &str, gate: &CallGate) -> Lookup {
        let Some(since) = make.since else { return Lookup::Unknown };
        let since = (since - SKEW).to_string();
        let email = make.field("email");
        let customer = make.field("customer");
        // Filters by the most selective field. Stripe's filter by address is exact, including case, so it uses the
        // address that was written.
        let query: Vec<(&str, &str)> = match (make.path.as_str(), email.as_deref(), customer.as_deref()) {
            ("/v1/customers", Some(email), _) => vec![("email", email)],
            ("/v1/customers", None, _) => vec![("created[gte]", since.as_str())],
            (_, _, Some(customer)) => vec![("customer", customer), ("status", "all")],
            _ => return Lookup::Unknown,
        };
        let Some(path) = make.path() else { return Lookup::Unknown };
        match self.api.list(&path, &query, |object| object["metadata"][MARK] == key, gate).await {
            Ok(listed) => match listed.found.first() {
                Some(object) => Lookup::Found(created(object)),
                None if listed.whole => Lookup::Absent,
                None => Lookup::Unknown,
            },
            Err(outcome @ Outcome::Retry { .. }) => Lookup::Later(outcome),
            Err(_) => Lookup::Unknown,
        }
    }

    /// Returns the ids of the selected customers. `at` is the arrival time of the event, in seconds.
    pub(super) async fn customers_of(
        &self,
        selected: &Customers,
        at: i64,
        gate: &CallGate,
    ) -> Result<Vec<String>, Outcome> {
        let wanted = match selected {
            Customers::Id(id) => return Ok(vec![id.clone()]),
            Customers::Metadata(wanted) => wanted,
        };
        let query = query(wanted);
        let fits = |object: &Value| fits(object, wanted);
        let indexed = self.api.list(&Path::of("/v1/customers/search"), &[("query", &query)], fits, gate).await?;
        let mut ids: Vec<String> = indexed.found.iter().filter_map(id).collect();
        // Customers created within the last hour may not be in the index yet.
        let from = clock::now().seconds() - INDEX_LAG;
        let until = at + SKEW;
        if from <= until {
            let from = from.to_string();
            let until = until.to_string();
            let fresh = [("created[gte]", from.as_str()), ("created[lte]", until.as_str())];
            let fresh = self.api.list(&Path::of("/v1/customers"), &fresh, fits, gate).await?;
            ids.extend(fresh.found.iter().filter_map(id));
            if ids.is_empty() && !fresh.whole {
                // There are too many new customers to read; a later attempt finds them in the index.
                return Err(Outcome::retry(Cause::Deferred));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

pub(super) fn id(object: &Value) -> Option<String> {
    object["id"].as_str().map(str::to_owned)
}

fn fits(object: &Value, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| object["metadata"][name] == *value)
}

/// Returns a search in Stripe's query language: `metadata['name']:'value'`, with quotes and backslashes escaped.
fn query(wanted: &BTreeMap<String, String>) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let parts: Vec<String> =
        wanted.iter().map(|(name, value)| format!("metadata['{}']:'{}'", quoted(name), quoted(value))).collect();
    parts.join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_cannot_end_the_value_it_stands_in() {
        let wanted = [("a".to_owned(), "x' OR name:'y".to_owned()), ("b".to_owned(), "2".to_owned())].into();
        assert_eq!(query(&wanted), r"metadata['a']:'x\' OR name:\'y' AND metadata['b']:'2'");
    }
}
