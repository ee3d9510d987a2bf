//! `/admin/v1/faults`

use super::error::AdminFailure;
use super::input::{DescribedField, Field, InputError, InputFields, InputValue, PresenceKind, ValueType};
use super::value_types::{AFTER_NAME, OVERLAP};
use super::{AdminRequest, AdminResponse};
use crate::admin::views::{FaultObject, ListObject};
use crate::admin::{AdminError, Page, RecordKind, check_fault_api};
use crate::domain::fault::{FaultEffect, FaultScope, FaultSpec, InjectedFault, LONGEST_FAULT, MOST_FAULTS};
use crate::domain::traffic::{TrafficEvent, TrafficEventKind};
use serde_json::json;
use std::time::Duration;

const KINDS: [&str; 4] = ["refuse", "delay", "status", "cut"];
/// The most frames before a cut.
const MOST_FRAMES: u64 = 1_000_000;

static KIND: ValueType<&'static str> = ValueType {
    read: |node| {
        let text = node.text()?;
        let known = KINDS.into_iter().find(|kind| *kind == text);
        known.ok_or_else(|| InputError::value("must be \"refuse\", \"delay\", \"status\" or \"cut\""))
    },
    schema: || json!({ "type": "string", "enum": KINDS, "examples": ["refuse"] }),
};
static DELAY: ValueType<u64> = ValueType {
    read: |node| whole(node, 1, LONGEST_FAULT.as_millis() as u64),
    schema: || json!({ "type": "integer", "minimum": 1, "maximum": LONGEST_FAULT.as_millis() as u64, "examples": [2000] }),
};
static STATUS: ValueType<u64> = ValueType {
    read: |node| whole(node, 400, 599),
    schema: || json!({ "type": "integer", "minimum": 400, "maximum": 599, "examples": [503] }),
};
static FRAMES: ValueType<u64> = ValueType {
    read: |node| whole(node, 0, MOST_FRAMES),
    schema: || json!({ "type": "integer", "minimum": 0, "maximum": MOST_FRAMES, "examples": [3] }),
};
static SHARE: ValueType<u64> = ValueType {
    read: |node| whole(node, 1, 100),
    schema: || json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 100, "examples": [50] }),
};

fn whole(node: &InputValue, least: u64, most: u64) -> Result<u64, InputError> {
    match node {
        InputValue::Whole(number) if (least..=most).contains(number) => Ok(*number),
        _ => Err(InputError::value(format!("must be a whole number from {least} to {most}"))),
    }
}

static OF_KIND: Field<&'static str> =
    Field { name: "kind", is: &KIND, need: PresenceKind::Required, about: "What happens to an attempt." };
static BY_DELAY: Field<u64> = Field {
    name: "delay_ms",
    is: &DELAY,
    need: PresenceKind::Optional,
    about: "Of a delay, and required there: so many milliseconds later, or at the end of the fault, the attempt is sent.",
};
static WITH_STATUS: Field<u64> = Field {
    name: "status",
    is: &STATUS,
    need: PresenceKind::Optional,
    about: "Of a status, and required there: what is replied in place of the provider.",
};
static AFTER_FRAMES: Field<u64> = Field {
    name: "frames",
    is: &FRAMES,
    need: PresenceKind::Optional,
    about: "Of a cut, and required there: so many frames of a stream pass, then its connection breaks. A whole answer \
            breaks within.",
};
static OF_DEPLOYMENT: Field<String> = Field {
    name: "deployment",
    is: &AFTER_NAME,
    need: PresenceKind::Optional,
    about: "Whose attempts. One of deployment and region.",
};
static OF_REGION: Field<String> = Field {
    name: "region",
    is: &AFTER_NAME,
    need: PresenceKind::Optional,
    about: "Whose attempts. One of deployment and region.",
};
static OF_SHARE: Field<u64> = Field {
    name: "share",
    is: &SHARE,
    need: PresenceKind::Optional,
    about: "To how many of 100 attempts; all of them unless given.",
};
static EXPIRES_IN: Field<Duration> = Field {
    name: "expires_in",
    is: &OVERLAP,
    need: PresenceKind::Required,
    about: "How long it lasts, at most 10m. Every fault ends by itself.",
};
/// The fields of a fault.
pub(super) static INJECTED: [&dyn DescribedField; 8] =
    [&OF_KIND, &BY_DELAY, &WITH_STATUS, &AFTER_FRAMES, &OF_DEPLOYMENT, &OF_REGION, &OF_SHARE, &EXPIRES_IN];

pub(super) async fn list(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    check_fault_api(&request.snapshot)?;
    let items = request.app.relay.faults().active();
    Ok(AdminResponse::ok(&ListObject::<FaultObject>::of(&Page { items, next: None })))
}

pub(super) async fn inject(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    check_fault_api(&request.snapshot)?;
    let spec = spec(&request.body)?;
    // Before it is done: what cannot be written to the audit is not done.
    request.admin.note_injected(&request.snapshot, &spec).await?;
    let injected = request.app.relay.faults().inject(spec).ok_or_else(|| {
        let message = format!("there are {MOST_FAULTS} faults in force, the most there may be; end one first");
        AdminError::Invalid { field: "kind", message }
    })?;
    note(&request, TrafficEventKind::FaultInjected, &injected);
    Ok(AdminResponse::ok(&FaultObject::from(&injected)).created())
}

pub(super) async fn end(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    check_fault_api(&request.snapshot)?;
    let faults = request.app.relay.faults();
    let not_found = || AdminError::NotFound { kind: RecordKind::Fault, name: request.name.clone() };
    let fault = faults.active().into_iter().find(|fault| fault.id.to_string() == request.name).ok_or_else(not_found)?;
    // It ends in any case: a store that cannot be written must not prolong an outage.
    faults.end(fault.id);
    note(&request, TrafficEventKind::FaultEnded, &fault);
    request.admin.note_ended(&fault).await?;
    Ok(AdminResponse::ok(&FaultObject::from(&fault)))
}

/// Shows it to those who watch: it explains what traffic does.
fn note(request: &AdminRequest, kind: TrafficEventKind, fault: &InjectedFault) {
    let subject = match &fault.spec.scope {
        FaultScope::Deployment(name) | FaultScope::Region(name) => name.clone(),
    };
    let (at_unix_ms, detail) = (request.app.clock.unix_ms(), fault.spec.effect.to_string().into());
    request.app.telemetry.live.note(TrafficEvent { at_unix_ms, kind, subject, detail });
}

fn spec(body: &InputFields) -> Result<FaultSpec, InputError> {
    let kind = body.required(&OF_KIND)?;
    let (delay, status, frames) =
        (body.optional(&BY_DELAY)?, body.optional(&WITH_STATUS)?, body.optional(&AFTER_FRAMES)?);
    let needed = |value: Option<u64>, field: &'static str| {
        value.ok_or_else(|| InputError::field(field, format!("is missing; a {kind} needs it")))
    };
    for (field, belongs_to, value) in
        [("delay_ms", "delay", delay), ("status", "status", status), ("frames", "cut", frames)]
    {
        if value.is_some() && kind != belongs_to {
            return Err(InputError::field(field, format!("is for the kind \"{belongs_to}\" only")));
        }
    }
    let effect = match kind {
        "delay" => FaultEffect::Delay(Duration::from_millis(needed(delay, "delay_ms")?)),
        "status" => FaultEffect::Status(needed(status, "status")? as u16),
        "cut" => FaultEffect::Cut { frames: needed(frames, "frames")? as u32 },
        _ => FaultEffect::Refuse,
    };
    let scope = match (body.optional(&OF_DEPLOYMENT)?, body.optional(&OF_REGION)?) {
        (Some(deployment), None) => FaultScope::Deployment(deployment.into()),
        (None, Some(region)) => FaultScope::Region(region.into()),
        (Some(_), Some(_)) => {
            return Err(InputError::field("region", "cannot be given with 'deployment'; name one of them"));
        }
        (None, None) => {
            return Err(InputError::field("deployment", "is missing, and so is 'region'; name one of them"));
        }
    };
    let share_percent = body.optional(&OF_SHARE)?.unwrap_or(100) as u8;
    let lasts = body.optional(&EXPIRES_IN)?.ok_or_else(|| {
        InputError::field(
            "expires_in",
            "is missing; every fault ends by itself, within 10 minutes: give \"30s\" or \"5m\"",
        )
    })?;
    Ok(FaultSpec { effect, scope, share_percent, lasts })
}
