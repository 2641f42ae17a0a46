//! Versions of a flow that its runs use: the current one, and older ones as stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use usher_flows::Flow;
use usher_store::{FlowStore, StoreError};

/// All versions of one flow.
pub(super) struct Versions {
    present: Arc<Flow>,
    store: Arc<dyn FlowStore>,
    older: Mutex<HashMap<String, Arc<Flow>>>,
}

impl Versions {
    pub(super) fn new(present: Arc<Flow>, store: Arc<dyn FlowStore>) -> Self {
        Self { present, store, older: Mutex::default() }
    }

    /// Returns the flow's name.
    pub(super) fn name(&self) -> &str {
        &self.present.name
    }

    /// Returns this version if it has been loaded before, else the current one.
    pub(super) fn known(&self, version: &str) -> Arc<Flow> {
        let older = self.older.lock().unwrap_or_else(PoisonError::into_inner);
        older.get(version).cloned().unwrap_or_else(|| self.present.clone())
    }

    /// Returns this version. `None` if it was never stored, or if this version of Usher can no longer read it.
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
