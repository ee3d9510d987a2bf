//! Injected faults as JSON objects: the answer of the admin API.

use super::UtcTime;
use crate::domain::fault::{FaultEffect, FaultScope, InjectedFault};
use schemars::JsonSchema;

/// An injected fault.
#[derive(serde::Serialize, JsonSchema, Debug)]
#[schemars(rename = "Fault", deny_unknown_fields)]
pub struct FaultObject {
    #[schemars(extend("const" = "fault"))]
    object: &'static str,
    /// What ends it before its time.
    id: String,
    #[schemars(extend("enum" = ["refuse", "delay", "status", "cut"]))]
    kind: &'static str,
    /// Of a delay, in milliseconds.
    delay_ms: Option<u64>,
    /// The HTTP status that is replied.
    status: Option<u16>,
    /// The frames before the cut.
    frames: Option<u32>,
    /// Whose attempts it concerns; one of deployment and region is null.
    deployment: Option<String>,
    region: Option<String>,
    /// Of 100 attempts, how many it happens to.
    share: u8,
    expires: UtcTime,
}

impl From<&InjectedFault> for FaultObject {
    fn from(fault: &InjectedFault) -> Self {
        let effect = fault.spec.effect;
        let (mut delay_ms, mut status, mut frames) = (None, None, None);
        match effect {
            FaultEffect::Refuse => {}
            FaultEffect::Delay(by) => delay_ms = u64::try_from(by.as_millis()).ok(),
            FaultEffect::Status(code) => status = Some(code),
            FaultEffect::Cut { frames: after } => frames = Some(after),
        }
        let (deployment, region) = match &fault.spec.scope {
            FaultScope::Deployment(name) => (Some(name.to_string()), None),
            FaultScope::Region(name) => (None, Some(name.to_string())),
        };
        Self {
            object: "fault",
            id: fault.id.to_string(),
            kind: effect.label(),
            delay_ms,
            status,
            frames,
            deployment,
            region,
            share: fault.spec.share_percent,
            expires: UtcTime::of(fault.until_unix_ms),
        }
    }
}
