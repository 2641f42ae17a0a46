//! The versions of a flow that runs are at: the present one, and older ones as the store kept them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::flows::Flow;
use crate::store::{Store, StoreError};

/// One flow in all its versions.
pub(super) struct Versions {
    present: Arc<Flow>,
    store: Arc<dyn Store>,
    older: Mutex<HashMap<String, Arc<Flow>>>,
}

impl Versions {
    pub(super) fn new(present: Arc<Flow>, store: Arc<dyn Store>) -> Self {
        Self { present, store, older: Mutex::default() }
    }

    /// The flow's name.
    pub(super) fn name(&self) -> &str {
        &self.present.name
    }

    /// This version if it has been asked for before, else the present one.
    pub(super) fn known(&self, version: &str) -> Arc<Flow> {
        let older = self.older.lock().unwrap_or_else(PoisonError::into_inner);
        older.get(version).cloned().unwrap_or_else(|| self.present.clone())
    }

    /// This version; none if it was never kept, or cannot be read by this Usher any more.
    pub(super) async fn get(&self, version: &str) -> Result<Option<Arc<Flow>>, StoreError> {
        let known = self.known(version);
        if known.version == version {
            return Ok(Some(known));
        }
        let Some(source) = self.store.flow(&self.present.name, version).await? else { return Ok(None) };
        let Ok(source) = serde_json::from_str(&source) else { return Ok(None) };
        let Ok(flow) = Flow::read(source) else { return Ok(None) };
        let flow = Arc::new(flow);
        self.older.lock().unwrap_or_else(PoisonError::into_inner).insert(version.to_owned(), flow.clone());
        Ok(Some(flow))
    }
}
