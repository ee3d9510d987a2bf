//! Metrics, the access log and the logs.
//!
//! Most of what they show comes from receipts. Nothing here decides anything, waits for a reader, or
//! fails a request, and no label holds text from a client.
//!
//! Start reading in [`Telemetry::record`].

pub mod access;
mod labelled;
mod labels;
mod line_writer;
pub mod live;
pub mod log;
pub mod metrics;
mod registry;
pub mod rfc3339;
#[cfg(test)]
pub(crate) mod samples;
mod terminal_line;

use crate::domain::receipt::Receipt;
use crate::domain::sla::probe::PROBE_KEY;
use crate::domain::sla::{SlaReceipt, SlaTerms};
use access::AccessLog;
pub use labels::ReplayOutcome;
use live::LiveTraffic;
pub use metrics::InFlight;
use metrics::{BuildMetadata, Metrics};
use std::sync::Arc;
pub use terminal_line::TerminalWriter;

/// What every finished request is reported to.
pub struct Telemetry {
    /// The metrics.
    pub metrics: Metrics,
    /// The traffic of the last 7 days, and of this moment.
    pub live: Arc<LiveTraffic>,
    access: AccessLog,
}

impl Telemetry {
    /// With nothing counted and no line written.
    pub fn new(access: AccessLog, build: BuildMetadata) -> Self {
        Self { metrics: Metrics::new(build, access.dropped()), live: Arc::default(), access }
    }

    /// Counts a finished request, also for the SLA that its policy promises, shows it to who watches, and writes its line.
    pub fn record(&self, receipt: &Arc<Receipt>, sla: Option<&SlaTerms>) {
        self.metrics.record(receipt);
        if let (Some(terms), Some(policy)) = (sla, &receipt.policy)
            && let Some(counted) = SlaReceipt::of(receipt)
        {
            match *counted.key == *PROBE_KEY {
                true => self.metrics.sla_probe(policy, counted.class(terms)),
                false => self.metrics.sla(policy, counted.class(terms)),
            }
        }
        self.live.record(receipt);
        self.access.write(receipt);
    }
}
