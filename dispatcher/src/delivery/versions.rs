//! Versions of a flow that its runs use: the current one, and older ones as stored.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use usher_flows::Flow;
use usher_service::options::Environment;
use usher_store::{FlowStore, StoreError};

/// All versions of one flow.
pub(super) struct Versions {
    present: Arc<Flow>,
    store: Arc<dyn FlowStore>,
    environment: Environment,
    older: Mutex<HashMap<String, Arc<Flow>>>,
}

impl Versions {
    /// `environment` has the variables that older versions name.
    pub(super) fn new(present: Arc<Flow>, store: Arc<dyn FlowStore>, environment: Environment) -> Self {
        Self { present, store, environment, older: Mutex::default() }
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
        let Ok(mut flow) = Flow::read(source) else { return Ok(None) };
        // A step that uses a variable which is set no longer tells its name.
        if let Err(error) = flow.settings.read(&flow.instances, &self.environment) {
            tracing::warn!(%error, "a variable that an older version of the flow names cannot be read");
        }
        let flow = Arc::new(flow);
        self.older.lock().unwrap_or_else(PoisonError::into_inner).insert(version.to_owned(), flow.clone());
        Ok(Some(flow))
    }
}
