//! The most that a request may cost: the size of its hold.
//!
//! It exists so that no answer costs more than was held for it: everything the request may send and receive is
//! bounded from above, at the most expensive deployment it may reach, in integers, rounded up once. If something
//! cannot be bounded the hold exceeds any limit, so that nothing is sent.
//!
//! Start reading in [`CostBound`].

use crate::domain::call::{Call, Endpoint};
use crate::domain::id::DeploymentId;
use crate::domain::money::NanoUsd;
use crate::domain::pricing::Price;
use crate::domain::routing::builder::CandidateModel;
use crate::domain::routing::table::{Model, RoutingTable};
use crate::domain::usage::Usage;

/// Input tokens that a model's template may add to those of the client: roles, a default system prompt.
const TEMPLATE_TOKENS: u64 = 256;

/// The input of a call is estimated at less than its tokens by no more than this factor: text that is dense, or in a
/// script of many tokens.
const ESTIMATE_ERRS_BY: u64 = 2;

/// The most that one call may cost, by deployment.
#[derive(Clone, Copy)]
pub struct CostBound<'a> {
    table: &'a RoutingTable,
    call: &'a Call,
    priced_at_ms: i64,
    /// The amount held if a deployment has no price.
    unpriced: NanoUsd,
}

impl<'a> CostBound<'a> {
    /// The bound for `call` at deployments of `table`, by the prices at the Unix millisecond `priced_at_ms`: the
    /// request is charged at these, however long it takes.
    pub fn of(table: &'a RoutingTable, call: &'a Call, priced_at_ms: i64) -> Self {
        Self { table, call, priced_at_ms, unpriced: NanoUsd::ZERO }
    }

    /// Whether deployments without a price may serve the call, at no cost; otherwise their bound exceeds any limit.
    pub fn serving_unpriced(self, may: bool) -> Self {
        Self { unpriced: if may { NanoUsd::ZERO } else { NanoUsd(i64::MAX) }, ..self }
    }

    /// The bound over all deployments of `candidate_models`: that of the most expensive one.
    pub fn dearest(self, candidate_models: &[CandidateModel]) -> NanoUsd {
        deployments(candidate_models).map(|id| self.at(id)).max().unwrap_or(NanoUsd::ZERO)
    }

    /// The bound at `deployment`.
    pub fn at(self, deployment: DeploymentId) -> NanoUsd {
        let (model, price) = self.priced(deployment);
        price.map_or(self.unpriced, |price| price.cost(self.usage(model, self.output(deployment))))
    }

    /// The most input tokens of this call at `deployment`: a token of text has one byte or more, an image has no more
    /// than any image at that model, and a model reads no more than its context.
    pub fn input(self, deployment: DeploymentId) -> u64 {
        self.input_of(self.priced(deployment).0)
    }

    /// The output ceiling, per choice, that the deployment must be asked for, so that its answer is within the bound;
    /// `None` where it ends by itself within that.
    ///
    /// Where the client set none, ours is written only where it may be needed and does not hurt: not where the host is
    /// known to write no more by itself, not to completions, for which hosts have short ceilings of their own, and not
    /// beside so much input that both may be more than the context, which hosts refuse.
    pub fn ceiling(self, deployment: DeploymentId) -> Option<u64> {
        if !self.call.endpoint().writes_text() {
            return None;
        }
        let deployment = self.table.deployment(deployment);
        let model = self.table.model(deployment.model);
        let most = longest(model);
        if let Some(asked) = self.call.metadata().max_output {
            return Some(asked.min(most));
        }
        let context = model.context.unwrap_or(u64::MAX);
        let input = self.call.estimated_input_tokens(model.image_tokens.map(|image| image.typical));
        let fits = input.saturating_mul(ESTIMATE_ERRS_BY).saturating_add(most) <= context;
        let ends_itself = most >= context || deployment.max_output.is_some_and(|own| own <= most);
        let is_usual = matches!(self.call.endpoint(), Endpoint::Chat | Endpoint::Responses);
        (is_usual && fits && !ends_itself).then_some(most)
    }

    /// The highest output ceiling per choice, at most the call's own, with which `candidate_models` cost no more than
    /// `left`; `None` if not even one token fits.
    pub fn output_within(self, candidate_models: &[CandidateModel], left: NanoUsd) -> Option<u64> {
        let within = deployments(candidate_models).map(|id| self.output_within_at(id, left)).min()?;
        within.filter(|tokens| *tokens > 0)
    }

    fn output_within_at(self, deployment: DeploymentId, left: NanoUsd) -> Option<u64> {
        let (model, price) = self.priced(deployment);
        // As if it were written.
        let most = if self.call.endpoint().writes_text() { longest(model) } else { 0 };
        let ceiling = self.call.metadata().max_output.map_or(most, |asked| asked.min(most));
        let Some(price) = price else { return (self.unpriced <= left).then_some(ceiling) };
        let fixed = price.cost(self.usage(model, 0));
        // Whole nano-dollars left for output, so that the rounding of the fixed part is not used twice.
        let spare = u128::try_from(left.0.checked_sub(fixed.0)?).ok()? * 1000;
        let each = u128::from(price.output.0) * u128::from(self.call.paid_answers());
        let fits = spare.checked_div(each).map_or(u64::MAX, |tokens| u64::try_from(tokens).unwrap_or(u64::MAX));
        Some(ceiling.min(fits))
    }

    /// The model of `deployment`, and its price at its highest.
    fn priced(self, deployment: DeploymentId) -> (&'a Model, Option<Price>) {
        let model = self.table.model(self.table.deployment(deployment).model);
        let version = self.table.price_of(deployment, self.call, self.priced_at_ms);
        (model, version.map(|version| version.most(self.input_of(model))))
    }

    fn usage(self, model: &Model, output: u64) -> Usage {
        let output = output.saturating_mul(self.call.paid_answers());
        Usage { input: self.input_of(model), output, ..Usage::default() }
    }

    fn input_of(self, model: &Model) -> u64 {
        if self.call.endpoint().is_free() {
            return 0;
        }
        let context = model.context.unwrap_or(u64::MAX).saturating_mul(u64::from(self.call.metadata().inputs));
        let facts = &self.call.metadata().cost_facts;
        let images = match (facts.media.images, model.image_tokens) {
            _ if facts.input_elsewhere => return context,
            (0, _) => 0,
            (_, None) => return context,
            (images, Some(each)) => each.most.saturating_mul(u64::from(images)),
        };
        let text = (self.call.body().len() as u64).saturating_sub(facts.media.image_bytes);
        context.min(text.saturating_add(TEMPLATE_TOKENS).saturating_add(images))
    }

    /// The most output tokens of each choice: the ceiling that the deployment is asked for, or what ends its answer by
    /// itself.
    fn output(self, deployment: DeploymentId) -> u64 {
        if !self.call.endpoint().writes_text() {
            return 0;
        }
        let target = self.table.deployment(deployment);
        let model = self.table.model(target.model);
        let by_itself = || match target.max_output {
            Some(own) if own <= longest(model) => longest(model),
            _ => model.context.unwrap_or(u64::MAX).max(longest(model)),
        };
        self.ceiling(deployment).unwrap_or_else(by_itself)
    }
}

/// The longest output of `model`, in tokens, as configured or as the price catalogue says.
fn longest(model: &Model) -> u64 {
    model.max_output.or(model.context).unwrap_or(u64::MAX)
}

fn deployments(candidate_models: &[CandidateModel]) -> impl Iterator<Item = DeploymentId> {
    candidate_models.iter().flat_map(|candidate| candidate.deployments.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::{CostFacts, Endpoint, RequestMetadata};
    use crate::domain::estimate::MediaSize;
    use crate::domain::money::PicoUsdPerToken;
    use crate::domain::pricing::{PriceVersion, Prices};
    use crate::domain::routing::fixture::{metadata, table};
    use crate::domain::routing::table::ImageTokens;
    use crate::domain::usage::TokenClass;
    use bytes::Bytes;
    use proptest::prelude::*;

    /// One model at two deployments, the second with a price of its own.
    fn two_deployments(
        context: u64,
        max_output: u64,
        prices: [(u64, u64, u64, i64); 2],
    ) -> (RoutingTable, Vec<CandidateModel>) {
        let mut table = table(&[("flash", &["us", "eu"])], &[("default", &["flash"], &[])]);
        let [first, second] = prices.map(|(input, cached, output, request)| Price {
            input: PicoUsdPerToken(input),
            cached_input: PicoUsdPerToken(cached),
            output: PicoUsdPerToken(output),
            request: NanoUsd(request),
            ..Price::default()
        });
        let model = &mut table.models[0];
        (model.context, model.max_output, model.price) = (Some(context), Some(max_output), Some(first.into()));
        table.deployments[1].price = Some(second.into());
        let deployments = table.deployment_ids().collect();
        let candidate_models = vec![CandidateModel { tier: None, model: table.deployments[0].model, deployments }];
        (table, candidate_models)
    }

    fn call(bytes: usize, change: impl FnOnce(&mut RequestMetadata)) -> Call {
        let mut metadata = metadata("flash");
        change(&mut metadata);
        Call::new(Endpoint::Chat, Bytes::from(vec![b' '; bytes]), metadata)
    }

    #[test]
    fn a_hold_is_the_worst_case_of_the_most_expensive_deployment() {
        let (table, candidate_models) =
            two_deployments(10_000, 1_000, [(70_000, 10_000, 250_000, 0), (100_000, 10_000, 200_000, 5)]);
        let check = |bytes, change: &dyn Fn(&mut RequestMetadata), expected: [i64; 3]| {
            let call = call(bytes, change);
            let worst = CostBound::of(&table, &call, 0);
            let [us, eu] = [0, 1].map(|id| worst.at(DeploymentId(id)).0);
            assert_eq!([us, eu, worst.dearest(&candidate_models).0], expected, "{call:?}");
        };
        // 1,000 bytes and the template: 1,256 tokens in, 1,000 out.
        check(1_000, &|_| {}, [87_920 + 250_000, 125_600 + 200_000 + 5, 337_920]);
        check(1_000, &|f| f.max_output = Some(10), [90_420, 127_605, 127_605]);
        check(1_000, &|f| f.max_output = Some(9_999), [337_920, 325_605, 337_920]);
        check(1_000, &|f| (f.max_output, f.choices) = (Some(10), 3), [95_420, 131_605, 131_605]);
        check(1_000, &|f| (f.max_output, f.cost_facts.candidates) = (Some(10), 3), [95_420, 131_605, 131_605]);
        // More bytes than the context holds, or input that is not in the body: the whole context.
        check(50_000, &|f| f.max_output = Some(0), [700_000, 1_000_005, 1_000_005]);
        check(10, &|f| (f.max_output, f.cost_facts.input_elsewhere) = (Some(0), true), [700_000, 1_000_005, 1_000_005]);
        check(50_000, &|f| (f.max_output, f.inputs) = (Some(0), 2), [1_400_000, 2_000_005, 2_000_005]);
    }

    #[test]
    fn a_ceiling_is_written_where_it_is_needed_and_does_not_hurt() {
        let check = |endpoint: Endpoint, bytes, asked, own, expected: (Option<u64>, u64)| {
            let (mut table, _) = two_deployments(10_000, 1_000, [(0, 0, 1_000, 0), (0, 0, 1_000, 0)]);
            table.deployments[0].max_output = own;
            let mut metadata = metadata("flash");
            metadata.max_output = asked;
            let call = Call::new(endpoint, Bytes::from(vec![b' '; bytes]), metadata);
            let bound = CostBound::of(&table, &call, 0);
            let held = bound.at(DeploymentId(0)).0;
            assert_eq!(
                (bound.ceiling(DeploymentId(0)), held as u64),
                expected,
                "{endpoint:?} {bytes} {asked:?} {own:?}"
            );
        };
        use Endpoint::{Chat, Completions, Embeddings};
        // The client's own, lowered to what is held.
        check(Chat, 100, Some(7), None, (Some(7), 7));
        check(Chat, 100, Some(7_000), None, (Some(1_000), 1_000));
        check(Completions, 100, Some(7_000), Some(500), (Some(1_000), 1_000));
        // Ours, unless the host is known to write no more by itself.
        check(Chat, 100, None, None, (Some(1_000), 1_000));
        check(Chat, 100, None, Some(1_001), (Some(1_000), 1_000));
        check(Chat, 100, None, Some(1_000), (None, 1_000));
        // Beside much input, and for completions, the host's own ceiling or the end of the context.
        check(Chat, 18_000, None, None, (Some(1_000), 1_000));
        check(Chat, 18_001, None, None, (None, 10_000));
        check(Chat, 18_001, None, Some(900), (None, 1_000));
        check(Completions, 100, None, None, (None, 10_000));
        check(Embeddings, 100, Some(7), None, (None, 0));
    }

    #[test]
    fn images_cost_what_any_image_can_at_the_model_and_not_their_bytes() {
        let (mut table, _) = two_deployments(10_000, 1_000, [(1_000, 1_000, 0, 0), (1_000, 1_000, 0, 0)]);
        let input = |table: &RoutingTable, images: u32, elsewhere: bool| {
            let call = call(5_000, |metadata| {
                metadata.cost_facts.media = MediaSize { images, image_bytes: 4_900, ..MediaSize::default() };
                metadata.cost_facts.input_elsewhere = elsewhere;
            });
            CostBound::of(table, &call, 0).input(DeploymentId(0))
        };
        assert_eq!(input(&table, 2, false), 10_000, "the context, where nothing is known of an image there");
        table.models[0].image_tokens = Some(ImageTokens { typical: 700, most: 1_500 });
        assert_eq!(input(&table, 2, false), 100 + TEMPLATE_TOKENS + 3_000);
        assert_eq!(input(&table, 7, false), 10_000);
        assert_eq!(input(&table, 2, true), 10_000);
    }

    #[test]
    fn what_cannot_be_bounded_fits_no_budget() {
        let (mut table, candidate_models) = two_deployments(1, 1, [(1, 1, 1, 0), (1, 1, 1, 0)]);
        (table.models[0].context, table.models[0].max_output) = (None, None);
        let worst = CostBound::of(&table, &call(10, |_| {}), 0).dearest(&candidate_models);
        assert!(worst.0 > i64::MAX / 1_000_000, "{worst}");
        (table.models[0].price, table.deployments[1].price) = (None, None);
        let call = call(10, |_| {});
        let worst = CostBound::of(&table, &call, 0);
        assert_eq!(worst.dearest(&candidate_models), NanoUsd::ZERO);
        assert_eq!(worst.serving_unpriced(false).dearest(&candidate_models), NanoUsd(i64::MAX));
        assert_eq!(worst.serving_unpriced(false).output_within(&candidate_models, NanoUsd(1_000_000)), None);
    }

    #[test]
    fn a_hold_uses_the_prices_at_the_given_time() {
        let (mut table, candidate_models) = two_deployments(10_000, 1_000, [(1_000, 1_000, 1_000, 0), (1, 1, 1, 0)]);
        let own = table.models[0].price.take().expect("the model has a price").at(0).clone();
        let dearer = Price { output: PicoUsdPerToken(9_000), ..own.price };
        table.models[0].price = Prices::new(own, vec![(1_000, dearer.into())]);
        let call = call(744, |metadata| metadata.max_output = Some(100));
        for (priced_at_ms, expected) in [(999, 1_100), (1_000, 1_900)] {
            let worst = CostBound::of(&table, &call, priced_at_ms);
            assert_eq!(
                (worst.dearest(&candidate_models).0, worst.at(DeploymentId(0)).0),
                (expected, expected),
                "{priced_at_ms}"
            );
        }
    }

    #[test]
    fn a_hold_covers_long_inputs_and_what_is_priced_apart() {
        let (mut table, candidate_models) = two_deployments(10_000, 1_000, [(1_000, 1_000, 1_000, 0), (1, 1, 1, 0)]);
        let own = table.models[0].price.take().expect("the model has a price").at(0).price;
        let mut long = Price { input: PicoUsdPerToken(2_000), ..own };
        long.apart.set(TokenClass::AudioOutput, Some(PicoUsdPerToken(9_000)));
        let version = PriceVersion::with_above(own, vec![(1_000, long)], None).expect("one threshold ascends");
        table.models[0].price = Prices::new(version, Vec::new());
        let held = |bytes| {
            let call = call(bytes, |metadata| metadata.max_output = Some(100));
            CostBound::of(&table, &call, 0).dearest(&candidate_models).0
        };
        // With the template, 1,000 input tokens are not above the threshold, and 1,001 are.
        assert_eq!(held(744), 1_000 + 100);
        assert_eq!(held(745), 2_002 + 900);
    }

    proptest! {
        #[test]
        fn holds_are_exact_and_cover_whatever_is_billed(
            (context, max_output) in (1..2_000_000_u64, 0..2_000_000_u64),
            prices in prop::array::uniform2((0..1u64 << 40, 0..1u64 << 40, 0..1u64 << 40, 0..1_000_000_i64)),
            (bytes, asked) in (0..5_000_usize, prop::option::of(0..2_000_000_u64)),
            (choices, candidates, inputs, elsewhere) in (1..129_u32, 0..200_u32, 1..50_u32, any::<bool>()),
            (shares, left) in ([0..=1000_u64, 0..=1000_u64, 0..=1000_u64], 0..i64::MAX),
        ) {
            let (table, candidate_models) = two_deployments(context, max_output, prices);
            let call = call(bytes, |metadata| {
                (metadata.max_output, metadata.choices, metadata.inputs) = (asked, choices, inputs);
                metadata.cost_facts = CostFacts { candidates, input_elsewhere: elsewhere, ..CostFacts::default() };
            });
            let worst = CostBound::of(&table, &call, 0);
            let whole = i128::from(context) * i128::from(inputs);
            let input = if elsewhere { whole } else { whole.min(bytes as i128 + i128::from(TEMPLATE_TOKENS)) };
            // Without a ceiling of the client's, ours is written where it fits; else the context ends the answer.
            let written = 2 * (bytes as u64).div_ceil(4) + max_output <= context;
            let own = if written { max_output } else { max_output.max(context) };
            let output = i128::from(asked.map_or(own, |asked| asked.min(max_output)));
            let output = output * i128::from(choices.max(candidates)) * i128::from(inputs);
            let reference = |(in_, cached, out, request): (u64, u64, u64, i64)| {
                let pico = input * i128::from(in_.max(cached)) + output * i128::from(out);
                (pico + 999).div_euclid(1000) + i128::from(request)
            };
            let expected = prices.map(reference);
            let held = worst.dearest(&candidate_models);
            prop_assert_eq!(i128::from(held.0), expected[0].max(expected[1]).min(i128::from(i64::MAX)));
            // Whatever part of the bounds a provider bills, the hold covers it.
            let part = |of: i128, share: u64| u64::try_from(of * i128::from(share) / 1000).unwrap_or(u64::MAX);
            let input = part(input, shares[0]);
            let usage = Usage {
                input,
                cached_input: part(input.into(), shares[1]),
                output: part(output, shares[2]),
                ..Usage::default()
            };
            for id in table.deployment_ids() {
                let version = table.price(id, 0).expect("both have a price");
                prop_assert!(version.price.cost(usage) <= worst.at(id));
            }
            // A ceiling that is said to fit does, and one more token does not.
            if let Some(tokens) = worst.output_within(&candidate_models, NanoUsd(left)) {
                let lower = call.with_ceiling(tokens);
                prop_assert!(CostBound::of(&table, &lower, 0).dearest(&candidate_models).0 <= left);
                prop_assert!(tokens <= asked.unwrap_or(max_output).min(max_output));
            }
        }
    }
}
