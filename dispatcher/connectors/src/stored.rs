//! The stored form of requests: JSON that only the connector which has written it reads.

use serde::Serialize;
use serde::de::DeserializeOwned;
use usher_engine::Outcome;
use usher_proto::Reason;

use super::PrepareError;

/// Returns the stored form of a request.
pub(super) fn write(request: &impl Serialize) -> Result<Vec<u8>, PrepareError> {
    serde_json::to_vec(request).map_err(|error| PrepareError(error.to_string()))
}

/// Reads a stored request. An error is the outcome of the attempt.
pub(super) fn read<T: DeserializeOwned>(request: &[u8]) -> Result<T, Outcome> {
    serde_json::from_slice(request).map_err(|_| unreadable())
}

/// Returns the outcome for a stored request that this version cannot read.
pub(super) fn unreadable() -> Outcome {
    Outcome::reject(Reason::FlowChanged, "the stored request cannot be read")
}
