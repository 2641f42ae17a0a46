//! The claim of an attempt: written to the store with the exact request before anything is sent.

use std::time::Duration;

use usher_engine::{AttemptState, Change, ChangeKind, Changed, StepReport};
use usher_proto::{Epoch, Reason};
use usher_service::clock;

use super::step_call::StepCall;
use super::{StepExecutor, StepExit, reject};
use crate::delivery::quotas::CallPermit;
use crate::delivery::store_actor::Stopped;

/// Claim lease: an attempt may be sent only within this time after its claim was requested. A new owner of the
/// partition waits longer than that. A process that was suspended in between finds its claim too old, claims again and
/// is fenced.
pub(super) const LEASE: Duration = Duration::from_secs(5);

impl StepExecutor {
    /// Claims the attempt and waits for its permit. On return the claim is fresh, and the request may be sent at once.
    /// Returns `None` if the process stops while an already claimed attempt waits for its permit.
    pub(super) async fn claim_and_wait(
        &self,
        step_call: &StepCall<'_>,
        epoch: Epoch,
        request: &[u8],
        quota: &str,
    ) -> Result<Option<CallPermit>, StepExit> {
        let wait = || self.quotas.permit(quota, self.requests.versions.name(), step_call.urgent, &self.stop);
        let claimed = step_call.run.claimed;
        if claimed.is_none() && !self.quotas.is_near(quota) {
            // Claims only after the wait: a new owner of the partition would have to take an earlier claim for an
            // attempt.
            let permit = wait().await.map_err(|Stopped| StepReport::Stopped)?;
            self.claim(step_call, epoch, request).await?;
            return Ok(Some(permit));
        }
        let mut claimed = match claimed {
            Some(with_admission) => with_admission,
            None => self.claim(step_call, epoch, request).await?,
        };
        let Ok(permit) = wait().await else { return Ok(None) };
        while clock::since_boot() - claimed >= LEASE {
            claimed = self.claim(step_call, epoch, request).await?;
        }
        Ok(Some(permit))
    }

    /// Records that an attempt is about to be made, with its request. Returns the time since boot at which the claim
    /// was requested; the lease counts from then.
    async fn claim(&self, step_call: &StepCall<'_>, epoch: Epoch, request: &[u8]) -> Result<Duration, StepExit> {
        let run = step_call.run;
        loop {
            let asked = clock::since_boot();
            let until = step_call.claimed_until(request, clock::now());
            let tries = AttemptState { claimed_until: until, ..run.tries };
            let kind = ChangeKind::Claim { tries, request: request.to_vec() };
            let event = run.event.reference();
            let key = run.event.subject.clone();
            match self
                .store_handle
                .claim(Change { event, key, partition: run.partition, epoch, kind, story: Box::default() })
                .await
            {
                Ok(Changed::Written | Changed::Awake) if clock::since_boot() - asked < LEASE => return Ok(asked),
                Ok(Changed::Written | Changed::Awake) => {}
                Ok(Changed::Ended) => return Err(StepReport::Ended.into()),
                Ok(Changed::Fenced) => return Err(StepReport::Fenced.into()),
                Ok(Changed::Refused) => return Err(reject(Reason::Unstorable, "the store refuses the request")),
                Err(Stopped) => return Err(StepReport::Stopped.into()),
            }
        }
    }
}
