//! The stored form of requests: JSON that only the connector which has written it reads.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
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

/// True if a stored request names its operation. A connector whose first operation stores the bytes that it sends tells
/// its other operations by this.
pub(super) fn has_operation(request: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Named {
        operation: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Named>(request).is_ok_and(|named| named.operation.is_some())
}

/// Returns the outcome for a stored request that this version cannot read.
pub(super) fn unreadable() -> Outcome {
    Outcome::reject(Reason::FlowChanged, "the stored request cannot be read")
}
