//! Responses that a provider makes in the background: they are billed by the request that sees their end first, once.
//!
//! What is held for one stays held until then, at most for a day; after that, and when the gateway stops, all of it counts as
//! spent. So a budget is never overspent, whoever asks when, and nothing is held for ever. A restart loses what was held,
//! which counts as spent, but not that the response is to be billed: it then has its line on the ledger, charged to nobody.
//!
//! Start reading in [`begin`], then [`bill`].

use super::RelayContext;
use super::guard::RequestGuard;
use super::spend::DeferredSpend;
use super::state::BackgroundCharge;
use crate::domain::estimate::UsageBasis;
use crate::domain::pricing::PriceVersion;
use crate::domain::provider_state::OwnedStateId;
use crate::domain::usage::Usage;
use crate::store::unbilled_responses::{UNBILLED_FOR_MS, UnbilledResponse};
use crate::upstream::AnswerBody;
use parking_lot::Mutex;
use std::collections::HashMap;

/// What is held for responses that are not billed yet, and their prices, of those that this process asked for.
#[derive(Default)]
pub(super) struct DeferredCharges(Mutex<HashMap<OwnedStateId, DeferredCharge>>);

struct DeferredCharge {
    spend: Option<DeferredSpend>,
    price: Option<PriceVersion>,
}

/// Leaves the bill to whoever sees the end of the response, from when `body` has its id.
pub(super) fn begin(guard: &mut RequestGuard, body: &AnswerBody) {
    let Some(BackgroundCharge::OfAnswer) = guard.state.background else { return };
    let (Some(id), Some(key)) = (body.first_made(), &guard.state.key) else { return };
    let id = id.of_owner(&key.name);
    let context = guard.context().clone();
    let (deployment, made_unix_ms) = (guard.state.deployment().into(), context.clock.unix_ms());
    // Where there are too many, it is charged as an answer without usage is.
    if context.state_accounts.unbilled.keep(UnbilledResponse { id, deployment, made_unix_ms }) {
        let bill = DeferredCharge { spend: guard.state.spend.defer(), price: guard.state.price.clone() };
        context.deferred_charges.0.lock().insert(id, bill);
        guard.state.background = Some(BackgroundCharge::Of(id));
    }
}

/// Records what `body` of a request is billed for, where that is a response made in the background: all of it, if it shows the
/// end first, and else nothing. `false` for every other request.
pub(super) fn bill(guard: &mut RequestGuard, body: &AnswerBody) -> bool {
    begin(guard, body);
    let id = match guard.state.background {
        None | Some(BackgroundCharge::OfAnswer) => return false,
        Some(BackgroundCharge::Billed) => return true,
        Some(BackgroundCharge::Of(id)) => id,
    };
    (guard.state.usage, guard.state.basis) = (Some(Usage::default()), UsageBasis::Counted);
    let tally = body.tally();
    guard.state.impossible_usage = tally.is_impossible;
    if let Some(usage) = tally.counted
        && let Some(billed) = take(guard, id)
    {
        guard.state.background = Some(BackgroundCharge::Billed);
        guard.state.usage = Some(usage);
        guard.state.price = billed.price;
        if let Some(spend) = billed.spend {
            guard.state.spend.take_over(spend);
        }
    }
    true
}

/// Takes the bill of `id`, unless another request has it, or the ledger has no room for the receipt.
fn take(guard: &mut RequestGuard, id: OwnedStateId) -> Option<DeferredCharge> {
    let context = guard.context().clone();
    if guard.state.spend.room.is_none() {
        guard.state.spend.room = Some(context.ledger.reserve()?);
    }
    let unbilled = context.state_accounts.unbilled.take(id)?;
    let known = context.deferred_charges.0.lock().remove(&id);
    Some(known.unwrap_or_else(|| DeferredCharge { spend: None, price: price_of(guard, &unbilled) }))
}

/// The price of a response that another process asked for, as the configuration of now has it.
fn price_of(guard: &RequestGuard, unbilled: &UnbilledResponse) -> Option<PriceVersion> {
    let table = &guard.state.config.as_ref()?.snapshot.table;
    let id = table.deployment_ids().find(|id| table.deployment(*id).name == unbilled.deployment)?;
    table.price(id, unbilled.made_unix_ms).cloned()
}

impl RelayContext {
    /// What `id` is billed for, if it is to be billed.
    pub(super) fn background_bill(&self, id: OwnedStateId) -> Option<BackgroundCharge> {
        self.state_accounts.unbilled.has(id).then_some(BackgroundCharge::Of(id))
    }

    /// Ends what is held for `id`, which is deleted: nobody will see its end, and it counts as spent.
    pub(super) fn end_background_bill(&self, id: OwnedStateId) {
        drop(self.state_accounts.unbilled.take(id).and_then(|_| self.deferred_charges.0.lock().remove(&id)));
    }

    /// Ends what was held for too long: it counts as spent.
    pub(super) fn end_old_background_bills(&self) {
        let old = self.state_accounts.unbilled.take_older(self.clock.unix_ms() - UNBILLED_FOR_MS);
        let mut bills = self.deferred_charges.0.lock();
        let ended: Vec<_> = old.iter().filter_map(|response| bills.remove(&response.id)).collect();
        drop(bills);
        if !old.is_empty() {
            let held = ended.iter().filter(|bill| bill.spend.is_some()).count();
            tracing::warn!(
                responses = old.len(),
                held,
                "nobody asked for the end of background responses: what was held is spent"
            );
        }
    }

    /// Ends all that is held, because the gateway stops: it counts as spent.
    pub(super) fn end_background_bills(&self) {
        let ended = std::mem::take(&mut *self.deferred_charges.0.lock());
        drop(ended);
    }
}
