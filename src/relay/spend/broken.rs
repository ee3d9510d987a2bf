//! What an answer costs that broke off, while another attempt may still answer in its place.

use super::{AttemptSpend, RequestSpend};
use crate::domain::estimate::UsageBasis;
use crate::domain::money::NanoUsd;
use crate::domain::pricing::PriceVersion;
use crate::domain::usage::Usage;

impl RequestSpend {
    /// Charges the answer, which broke off, what is known of it. Where no other attempt answers, nothing is added.
    pub(in crate::relay) fn answer_broke(
        &mut self,
        price: Option<&PriceVersion>,
        usage: Option<Usage>,
        basis: UsageBasis,
    ) {
        let cost = self.bill(price, usage, basis).cost;
        if let Some(AttemptSpend { hold, .. }) = self.answered.take().and_then(|number| self.running.take(number)) {
            self.charges.extend(hold.settle(NanoUsd(cost.0 - self.unanswered.0)));
        }
        (self.unanswered, self.whole_hold, self.is_charged) = (cost, false, true);
    }
}
