//! The spans of this process as parts of distributed traces. Where spans are not exported there is no trace of our own,
//! and nothing here has an effect.

use tracing::Span;
use usher_proto::TraceParent;

use crate::telemetry::export;

/// Makes a span the child of the span that `parent` names, if there is one. Call it before the span is entered.
pub fn continue_from(span: &Span, parent: Option<TraceParent>) {
    if let Some(parent) = parent {
        export::continue_from(span, parent);
    }
}

/// Returns the position of a span in its trace, for the parts of the trace that follow it. `None` if spans are not
/// exported.
pub fn position(span: &Span) -> Option<TraceParent> {
    export::position(span)
}
