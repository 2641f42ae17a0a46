//! Classification of the database's errors.

use usher_engine::{Cause, DestinationAnswer, Outcome};
use usher_proto::Reason;
use usher_sql::SqlError;
use usher_sql::fault::DatabaseFault;

use crate::CallGate;

/// Records the error for operators, and returns the outcome.
pub(super) fn failed(error: &SqlError, gate: &CallGate) -> Outcome {
    gate.refused(answer(error));
    classify(error)
}

/// Returns the error as operators see it.
pub(super) fn answer(error: &SqlError) -> DestinationAnswer {
    let code = match error {
        SqlError::Answer(answer) => Some(answer.code.to_string()),
        _ => None,
    };
    DestinationAnswer::new(None, code.as_deref(), Some(&error.to_string()))
}

/// Classifies an error by the same table as the store's errors.
pub(super) fn classify(error: &SqlError) -> Outcome {
    let code = match error {
        SqlError::Answer(answer) => answer.code.to_string(),
        _ => String::new(),
    };
    outcome(DatabaseFault::of(error), &code, error.to_string())
}

pub(super) fn outcome(fault: DatabaseFault, code: &str, error: String) -> Outcome {
    match fault {
        DatabaseFault::Refused => Outcome::reject(Reason::InvalidRequest, error),
        // SQLSTATE class 42: a table or a column does not exist, or the right to use it is missing.
        DatabaseFault::NeedsOperator if code.len() == 5 && code.starts_with("42") => {
            Outcome::reject(Reason::Configuration, error)
        }
        // A wrong password or certificate stops every run until it is corrected, so the run is retried. An unclear
        // error counts against a run only while other runs succeed.
        DatabaseFault::NeedsOperator | DatabaseFault::Transient | DatabaseFault::Damaged | DatabaseFault::Unclear => {
            Outcome::retry(Cause::Unavailable)
        }
    }
}
