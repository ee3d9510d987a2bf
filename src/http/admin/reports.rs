//! `/admin/v1/usage` and `/admin/v1/ledger`

use super::error::AdminFailure;
use super::input::{DescribedField, Field, InputError, InputFields, PresenceKind};
use super::keys::{PAGE, PAGE_LIMIT};
use super::value_types::{AFTER_REQUEST, DIMENSIONS, MOMENT, SOUGHT};
use super::{AdminRequest, AdminResponse};
use crate::admin::views::{ListObject, RequestObject, UsageReportObject};
use crate::admin::{AdminError, RecordKind, ReportTime};
use crate::domain::id::RequestId;
use crate::domain::report::{Condition, Dimension, ReceiptsQuery, UsageQuery};

static BY: Field<Vec<Dimension>> =
    Field { name: "by", is: &DIMENSIONS, need: PresenceKind::Optional, about: "What to sum by." };
/// The beginning of a range of time.
pub(super) static SINCE: Field<ReportTime> = Field {
    name: "since",
    is: &MOMENT,
    need: PresenceKind::Optional,
    about: "At this time or later: how long ago, a day in UTC, or a time.",
};
/// Its end.
pub(super) static UNTIL: Field<ReportTime> =
    Field { name: "until", is: &MOMENT, need: PresenceKind::Optional, about: "Before this time: the same." };
static AFTER: Field<RequestId> =
    Field { name: "after", is: &AFTER_REQUEST, need: PresenceKind::Optional, about: "The `next` of the page before." };

const fn sought(name: &'static str) -> Field<Option<String>> {
    Field { name, is: &SOUGHT, need: PresenceKind::Optional, about: "Only requests of this; - is none." }
}

/// In the order of [`Dimension::ALL`].
static OF: [Field<Option<String>>; 10] = [
    sought("key"),
    sought("team"),
    sought("policy"),
    sought("model"),
    sought("deployment"),
    sought("tier"),
    sought("region"),
    sought("price"),
    sought("day"),
    sought("reason"),
];
pub(super) static SUMMED_BY: [&dyn DescribedField; 13] =
    [&BY, &SINCE, &UNTIL, &OF[0], &OF[1], &OF[2], &OF[3], &OF[4], &OF[5], &OF[6], &OF[7], &OF[8], &OF[9]];
pub(super) static LISTED_BY: [&dyn DescribedField; 14] = [
    &PAGE_LIMIT,
    &AFTER,
    &SINCE,
    &UNTIL,
    &OF[0],
    &OF[1],
    &OF[2],
    &OF[3],
    &OF[4],
    &OF[5],
    &OF[6],
    &OF[7],
    &OF[8],
    &OF[9],
];

pub(super) async fn usage(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, query, .. } = request;
    let (since_unix_ms, until_unix_ms) = span(&query, app.clock.unix_ms())?;
    let by = query.optional(&BY)?.unwrap_or_else(|| vec![Dimension::Key]);
    let query = UsageQuery { by, since_unix_ms, until_unix_ms, only: conditions(&query)? };
    let sums = app.admin.usage(query.clone()).await?;
    Ok(AdminResponse::ok(&UsageReportObject::of(&query, &sums)))
}

pub(super) async fn list(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, query, .. } = request;
    let (since_unix_ms, until_unix_ms) = span(&query, app.clock.unix_ms())?;
    let (after, most) = (query.optional(&AFTER)?, query.optional(&PAGE_LIMIT)?.unwrap_or(PAGE));
    let query = ReceiptsQuery { since_unix_ms, until_unix_ms, only: conditions(&query)?, after, most };
    Ok(AdminResponse::ok(&ListObject::<RequestObject>::of(&app.admin.receipts(query).await?)))
}

pub(super) async fn read(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    // A name that cannot be a request id is the id of no request.
    let nobody = || AdminError::NotFound { kind: RecordKind::Request, name: request.name.clone() };
    let id = RequestId::parse(&request.name).ok_or_else(nobody)?;
    Ok(AdminResponse::ok(&RequestObject::from(&request.app.admin.receipt(id).await?)))
}

/// The range of time that `query` asks for, in Unix milliseconds.
pub(super) fn span(query: &InputFields, now_unix_ms: i64) -> Result<(Option<i64>, Option<i64>), InputError> {
    let moment = |when: Option<ReportTime>| when.map(|when| when.unix_ms(now_unix_ms));
    Ok((moment(query.optional(&SINCE)?), moment(query.optional(&UNTIL)?)))
}

fn conditions(query: &InputFields) -> Result<Vec<Condition>, InputError> {
    let sought = Dimension::ALL.into_iter().zip(&OF).map(|(dimension, field)| {
        let value = query.optional(field)?;
        Ok(value.map(|value| Condition { dimension, value }))
    });
    sought.filter_map(Result::transpose).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_can_be_summed_by_can_be_looked_for() {
        assert_eq!(OF.each_ref().map(|field| field.name), Dimension::ALL.map(Dimension::name));
    }
}
