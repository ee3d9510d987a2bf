//! Keeps what came of a drill in the store that the configuration names, for `tierway posture`.
//!
//! The store is neither made nor migrated for it: where there is none, the drill is as good without.
//!
//! Start reading at [`keep`].

use super::{DrillArgs, DrillResult, DrillTarget, ScenarioRecord};
use crate::cli::context::note;
use crate::clock::Clock;
use crate::domain::drill::report::DrillReport;
use crate::store::Register;
use std::sync::Arc;

/// Keeps the report of each scenario of `result`, or says why none is kept. What a running gateway did is in its own metrics
/// and receipts.
pub(super) async fn keep(args: &DrillArgs, result: &DrillResult) {
    let DrillTarget::Simulated(config) = &result.target else { return };
    let register = match args.store.place_of(&config.snapshot) {
        Ok(place) => place.register_to_read(false, Clock).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.message().trim_start_matches("error: ").to_owned()),
    };
    let kept = match register {
        Ok(register) => write(&*register, &config.source, result).await,
        Err(why) => Err(why),
    };
    if let Err(why) = kept {
        note(&format!("note: `tierway posture` will not know of this drill, because no report is kept: {why}"));
    }
}

async fn write(register: &dyn Register, source: &str, result: &DrillResult) -> Result<(), String> {
    for scenario in &result.scenarios {
        let kept = register.keep_drill_report(report(scenario, source)).await;
        kept.map_err(|_| "the store cannot be written at the moment".to_owned())?;
    }
    Ok(())
}

fn report(scenario: &ScenarioRecord, source: &str) -> DrillReport {
    DrillReport {
        scenario: scenario.scenario.name().into(),
        finished_unix_ms: scenario.finished_unix_ms,
        configuration: source.into(),
        region: scenario.region.clone().unwrap_or_default(),
        policies: scenario.policies.iter().map(Arc::clone).collect(),
        passed: scenario.passed(),
        checks: scenario.checks.iter().map(Into::into).collect(),
    }
}
