//! Compares the steps of flows with the settings, at the start.

use usher_service::ConfigError;

use super::SignedPost;
use super::secrets::variable;
use crate::StepUse;

impl SignedPost {
    /// Checks that each step's secret is set and its address allowed.
    pub(super) fn check_steps(&self, uses: &[StepUse<'_>]) -> Result<(), ConfigError> {
        for used in uses {
            let secret = used.text("secret");
            if self.secrets.get(secret).is_err() {
                let variable = variable(secret);
                let StepUse { flow, step, .. } = used;
                let why = format!("not set, and step {step} of flow {flow} signs with it: it is whsec_ and base64");
                return Err(ConfigError::new(&variable, why));
            }
            if let Some(Err(error)) =
                used.text("url").and_then(|url| url.parse().ok()).map(|url| self.plain_http.check_scheme(&url))
            {
                return Err(used.wrong("url", &error.0));
            }
        }
        Ok(())
    }
}
