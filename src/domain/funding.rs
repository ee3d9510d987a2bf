//! Who pays for a request: how an amount is divided over credit and budgets, and how a cost is charged to them.
//!
//! It exists so that these rules can be stated and tested without a store. The key's credit is spent first, then
//! its team's; each budget holds what credit does not cover. Where only credit pays, it covers everything and each
//! budget counts everything as well. It must never move money or wait: the store asks how much, moves it, and
//! reports back what there was.
//!
//! Start reading in [`HoldSplit`], then [`CostSplit`].

use crate::domain::budget::{Account, CreditUse, OverBudget, Scope};
use crate::domain::money::NanoUsd;
use crate::domain::register::Holder;
use std::sync::Arc;

/// Whose credit pays for requests of `key`, in the order in which it is spent: the key's, then its team's.
pub fn credit_order<'a>(key: &'a Arc<str>, team: Option<&'a Arc<str>>) -> [Option<(Scope, &'a Arc<str>)>; 2] {
    [Some((Scope::Key, key)), team.map(|team| (Scope::Team, team))]
}

/// How the amount of one hold is divided. Credit is asked in [`credit_order`] while [`uncovered`](Self::uncovered)
/// is not zero; then each budget holds its [`budget_share`](Self::budget_share).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HoldSplit {
    amount: NanoUsd,
    uncovered: NanoUsd,
    credit_use: CreditUse,
}

impl HoldSplit {
    /// Nothing of `amount` is covered yet; a negative amount counts as zero.
    pub fn new(amount: NanoUsd, credit_use: CreditUse) -> Self {
        let amount = amount.max(NanoUsd::ZERO);
        Self { amount, uncovered: amount, credit_use }
    }

    /// The whole amount.
    pub fn amount(self) -> NanoUsd {
        self.amount
    }

    /// The part that no credit covers: what the next credit is asked for.
    pub fn uncovered(self) -> NanoUsd {
        self.uncovered
    }

    /// Notes that a credit holds `part`, at most what was uncovered.
    pub fn cover(&mut self, part: NanoUsd) {
        self.uncovered.0 -= part.0;
    }

    /// Whether only credit may pay, and all of it together covers too little.
    pub fn lacks_credit(self) -> bool {
        self.credit_use == CreditUse::Only && self.uncovered > NanoUsd::ZERO
    }

    /// What each budget must hold. `None`: credit covers everything, and budgets take no part.
    pub fn budget_share(self) -> Option<NanoUsd> {
        match self.credit_use {
            CreditUse::Only => Some(self.amount),
            CreditUse::First if self.uncovered > NanoUsd::ZERO => Some(self.uncovered),
            // A request that may cost nothing still names its budgets: what it costs after all is theirs.
            CreditUse::First => (self.amount == NanoUsd::ZERO).then_some(NanoUsd::ZERO),
        }
    }

    /// How the cost of what this split holds is charged; a negative cost counts as zero.
    pub fn charge(self, cost: NanoUsd) -> CostSplit {
        let cost = cost.max(NanoUsd::ZERO);
        CostSplit { cost, unpaid: cost, credit_use: self.credit_use }
    }

    /// The refusal of `key` where only credit pays. `credits` are the accounts asked, in order, with what each was
    /// granted; the first of them is named, or the key's own where nobody was ever granted any.
    pub fn refused_by_credit<C>(self, key: &Arc<str>, credits: C) -> OverBudget
    where
        C: Iterator<Item = (Arc<Account>, NanoUsd)>,
    {
        let (mut first, mut limit) = (None, 0_i64);
        for (account, granted) in credits {
            first.get_or_insert(account);
            limit = limit.saturating_add(granted.0);
        }
        let own = || Arc::new(Holder { scope: Scope::Key, name: key.clone() }.account());
        OverBudget {
            account: first.unwrap_or_else(own),
            limit: NanoUsd(limit),
            left: self.covered(),
            wanted: self.amount,
            ends_unix_ms: None,
        }
    }

    /// A budget's refusal of its share, as the client reads it: about the whole amount, and with what credit covers
    /// beside what the budget has left. Where only credit pays, the budget alone sets the limit.
    pub fn refused_by_budget(self, over: OverBudget) -> OverBudget {
        let beside = match self.credit_use {
            CreditUse::First => self.covered(),
            CreditUse::Only => NanoUsd::ZERO,
        };
        OverBudget { left: NanoUsd(over.left.0.saturating_add(beside.0)), wanted: self.amount, ..over }
    }

    fn covered(self) -> NanoUsd {
        NanoUsd(self.amount.0 - self.uncovered.0)
    }
}

/// How the cost of one attempt is charged: each credit in the order of the hold, then every budget alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CostSplit {
    cost: NanoUsd,
    unpaid: NanoUsd,
    credit_use: CreditUse,
}

impl CostSplit {
    /// What the next credit pays, of which `held` was held. A cost beyond the hold is charged to budgets; where
    /// only credit pays, the last credit pays it.
    pub fn charge_credit(&mut self, held: NanoUsd, is_last: bool) -> NanoUsd {
        let pays_overrun = is_last && self.credit_use == CreditUse::Only;
        let paid = if pays_overrun { self.unpaid } else { self.unpaid.min(held) };
        self.unpaid.0 -= paid.0;
        paid
    }

    /// What every budget of the hold is charged, once credit has paid.
    pub fn budget_share(self) -> NanoUsd {
        match self.credit_use {
            CreditUse::First => self.unpaid,
            CreditUse::Only => self.cost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CreditUse::{First, Only};
    use super::*;
    use proptest::prelude::*;

    /// What each credit holds when `amount` is to be held and the credits have `available`.
    fn hold(amount: i64, credit_use: CreditUse, available: &[i64]) -> (HoldSplit, Vec<i64>) {
        let mut split = HoldSplit::new(NanoUsd(amount), credit_use);
        let mut held = Vec::new();
        for available in available {
            if split.uncovered() == NanoUsd::ZERO {
                break;
            }
            let part = split.uncovered().0.min(*available);
            split.cover(NanoUsd(part));
            held.push(part);
        }
        (split, held)
    }

    /// What each credit and every budget is charged.
    fn charge(split: HoldSplit, held: &[i64], cost: i64) -> (Vec<i64>, i64) {
        let mut costs = split.charge(NanoUsd(cost));
        let last = held.len().saturating_sub(1);
        let credits = held.iter().enumerate().map(|(at, held)| costs.charge_credit(NanoUsd(*held), at == last).0);
        (credits.collect(), costs.budget_share().0)
    }

    fn account(name: &str) -> Arc<Account> {
        Arc::new(Holder { scope: Scope::Team, name: name.into() }.account())
    }

    #[test]
    fn the_keys_credit_comes_before_its_teams() {
        let (key, team) = (Arc::from("app"), Arc::from("search"));
        assert_eq!(credit_order(&key, Some(&team)), [Some((Scope::Key, &key)), Some((Scope::Team, &team))]);
        assert_eq!(credit_order(&key, None), [Some((Scope::Key, &key)), None]);
    }

    #[test]
    fn a_hold_is_taken_from_credit_first_and_the_rest_from_each_budget() {
        let check = |amount, credit_use, available: &[i64], held: &[i64], share, lacks| {
            let (split, parts) = hold(amount, credit_use, available);
            let found = (&parts[..], split.budget_share().map(|share| share.0), split.lacks_credit());
            assert_eq!(found, (held, share, lacks), "{amount} {credit_use:?} of {available:?}");
        };
        check(10, First, &[], &[], Some(10), false);
        check(10, First, &[4], &[4], Some(6), false);
        check(10, First, &[4, 5], &[4, 5], Some(1), false);
        check(10, First, &[0, 5], &[0, 5], Some(5), false);
        check(10, First, &[10, 5], &[10], None, false);
        check(10, First, &[4, 9], &[4, 6], None, false);
        check(0, First, &[4], &[], Some(0), false);
        check(-1, First, &[4], &[], Some(0), false);
        check(10, Only, &[4, 9], &[4, 6], Some(10), false);
        check(10, Only, &[4, 5], &[4, 5], Some(10), true);
        check(10, Only, &[], &[], Some(10), true);
        check(0, Only, &[], &[], Some(0), false);
    }

    #[test]
    fn a_cost_is_charged_in_the_order_of_the_hold_and_an_overrun_to_whoever_may_pay_it() {
        let check = |credit_use, available: &[i64], cost, credits: &[i64], budgets| {
            let (split, held) = hold(10, credit_use, available);
            let found = charge(split, &held, cost);
            assert_eq!(found, (credits.to_vec(), budgets), "{cost} {credit_use:?} of {held:?}");
        };
        check(First, &[], 7, &[], 7);
        check(First, &[], 12, &[], 12);
        check(First, &[4, 3], 2, &[2, 0], 0);
        check(First, &[4, 3], 6, &[4, 2], 0);
        check(First, &[4, 3], 9, &[4, 3], 2);
        check(First, &[4, 3], 12, &[4, 3], 5);
        check(First, &[4, 3], -1, &[0, 0], 0);
        check(Only, &[4, 6], 3, &[3, 0], 3);
        check(Only, &[4, 6], 10, &[4, 6], 10);
        check(Only, &[4, 6], 12, &[4, 8], 12);
        check(Only, &[10], 12, &[12], 12);
        // All of it is credit's, and no budget was held: the overrun is on the receipt, and charged to no account.
        check(First, &[10], 12, &[10], 2);
        assert_eq!(hold(10, First, &[10]).0.budget_share(), None);
    }

    #[test]
    fn a_refusal_names_what_may_still_be_spent() {
        let over = OverBudget {
            account: account("budget"),
            limit: NanoUsd(100),
            left: NanoUsd(3),
            wanted: NanoUsd(6),
            ends_unix_ms: Some(7),
        };
        for (credit_use, available, left) in [(First, 4, 7), (Only, 10, 3)] {
            let refused = hold(10, credit_use, &[available]).0.refused_by_budget(over.clone());
            assert_eq!(refused, OverBudget { left: NanoUsd(left), wanted: NanoUsd(10), ..over.clone() });
        }
        let key = Arc::from("app");
        let (split, _) = hold(10, Only, &[4, 1]);
        let credits = [(account("one"), NanoUsd(50)), (account("two"), NanoUsd(20))];
        let refused = split.refused_by_credit(&key, credits.into_iter());
        let expected = |account, limit, left| OverBudget {
            account,
            limit: NanoUsd(limit),
            left: NanoUsd(left),
            wanted: NanoUsd(10),
            ends_unix_ms: None,
        };
        assert_eq!(refused, expected(account("one"), 70, 5));
        let own = Holder { scope: Scope::Key, name: key.clone() }.account();
        let none = hold(10, Only, &[]).0.refused_by_credit(&key, std::iter::empty());
        assert_eq!(none, expected(Arc::new(own), 0, 0));
    }

    proptest! {
        #[test]
        fn nothing_is_held_or_charged_twice(
            (amount, cost) in (0..1_000_000_i64, 0..2_000_000_i64),
            available in prop::collection::vec(0..1_000_000_i64, 0..3),
            only: bool,
        ) {
            let credit_use = if only { Only } else { First };
            let (split, held) = hold(amount, credit_use, &available);
            let covered: i64 = held.iter().sum();
            prop_assert!(held.iter().zip(&available).all(|(held, available)| held <= available));
            // A later credit is asked only where those before it gave all that they had.
            prop_assert!(held.iter().zip(&available).rev().skip(1).all(|(held, available)| held == available));
            prop_assert_eq!(split.lacks_credit(), only && covered < amount);
            prop_assert_eq!(split.uncovered().0, amount - covered);
            let share = split.budget_share().map_or(0, |share| share.0);
            prop_assert_eq!(share, if only { amount } else { amount - covered });
            if split.lacks_credit() {
                return Ok(());
            }
            let (credits, budgets) = charge(split, &held, cost);
            let paid: i64 = credits.iter().sum();
            if only {
                // Every nano-dollar is paid from credit, and counted in each budget.
                prop_assert_eq!((paid, budgets), (if held.is_empty() { 0 } else { cost }, cost));
            } else {
                prop_assert_eq!(paid, cost.min(covered));
                prop_assert_eq!(paid + budgets, cost);
            }
            // Within the hold, nobody is charged more than was held of them.
            if cost <= amount {
                prop_assert!(credits.iter().zip(&held).all(|(paid, held)| paid <= held));
                prop_assert!(budgets <= share);
            }
        }
    }
}
