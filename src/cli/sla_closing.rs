//! What a gateway does for its SLAs by itself: records that it is alive, and closes months that are due.
//!
//! Start reading at [`keep_slas`].

use super::operator::operator;
use crate::http::AppState;
use std::sync::Arc;
use std::time::Duration;

/// How often it records that it is alive: several times in an interval of five minutes.
const PRESENT_EVERY: Duration = Duration::from_secs(60);
/// Months that are due are looked for in each of so many rounds: every ten minutes.
const CLOSE_EVERY: u64 = 10;
/// Receipts that came later are looked for in each of so many: once a day.
const RESTATE_EVERY: u64 = 24 * 60;

/// Records presence and closes months until the process ends.
pub(super) async fn keep_slas(app: Arc<AppState>) {
    let admin = app.admin.by(operator("sla"));
    for round in 0_u64.. {
        let snapshot = app.relay.active_config().snapshot.clone();
        let now_unix_ms = app.clock.unix_ms();
        admin.note_presence(&snapshot, now_unix_ms);
        let has_sla = snapshot.policies.iter().any(|policy| policy.sla.is_some());
        if has_sla && round.is_multiple_of(CLOSE_EVERY) {
            let restate = round.is_multiple_of(RESTATE_EVERY);
            for closing in admin.close_due_months(&snapshot, restate, now_unix_ms).await {
                tracing::info!(
                    policy = %closing.policy,
                    month = %closing.month,
                    statement = closing.statement,
                    eligible = closing.eligible,
                    failed = closing.failed,
                    granted_usd = %closing.granted(),
                    "an SLA was closed"
                );
            }
        }
        app.clock.sleep(PRESENT_EVERY).await;
    }
}
