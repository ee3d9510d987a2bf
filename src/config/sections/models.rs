//! `[models.NAME]` and its deployments.

use std::num::{NonZeroU32, NonZeroU64};

use super::super::reader::{Setting, SettingKey, Table, ValueError, keywords, section};
use super::super::value::{Name, NonZeroDuration};
use super::prices::{PriceSection, prices};
use super::{check_name, nonzero};
use crate::domain::call::{Endpoint, Feature};
use crate::domain::routing::table::{Capacity, RESERVED_PREFIX};

section! {
    /// `[models.NAME]`
    pub(in crate::config) struct ModelSection named by name {
        /// What it serves. Absent: chat at providers that speak openai, messages at those that speak anthropic, both at
        /// simulated ones.
        endpoints: Option<Vec<Setting<Endpoint>>> = list(),
        /// What it costs, in USD, or what it costs from which day on; a deployment's own takes the place of the
        /// model's. Absent: as the price catalogue says, where it knows the host and the model.
        price: Option<Vec<PriceSection>> = read_by(prices),
        /// The longest input and output together, in tokens. Absent: as the price catalogue says; without either, no
        /// budget may apply.
        context: Option<Setting<NonZeroU64>> = optional(),
        /// The longest output, in tokens. Absent: as the price catalogue says; without either, no budget may apply.
        max_output: Option<Setting<NonZeroU64>> = optional(),
        /// What an answer usually takes, in tokens: for limits where the client names no ceiling.
        // Corrected as usage is observed.
        typical_output: Setting<NonZeroU64> = or(nonzero(1024).into()),
        /// What it can do. Absent: everything.
        features: Option<Vec<Setting<Feature>>> = list(),
        /// Its own deadline for the first token of a stream, in place of that of [routing].
        first_token: Option<Setting<NonZeroDuration>> = optional(),
        /// Its own deadline for a whole answer, in place of that of [routing].
        whole: Option<Setting<NonZeroDuration>> = optional(),
        /// Each is this model at one provider.
        deployments: Vec<DeploymentSection> = read_by(deployments),
    }
}

section! {
    /// `[[models.NAME.deployments]]`
    pub(in crate::config) struct DeploymentSection {
        /// Who serves it.
        provider: Option<Setting<Name>> = required(),
        /// Its share among the model's shared deployments, where balance is weighted.
        // Equal shares.
        weight: Setting<NonZeroU32> = or(NonZeroU32::MIN),
        /// The model's name at the provider. Absent: the same.
        upstream_model: Option<Setting<Name>> = optional(),
        /// Its stable name, in metrics and headers. Absent: PROVIDER/MODEL, or PROVIDER/Pro/MODEL if dedicated.
        name: Option<Setting<Name>> = optional(),
        /// Dedicated capacity is reached only as "Pro/MODEL".
        capacity: Setting<Capacity> = or(Capacity::Shared),
        /// How many requests it may carry at once; full is passed over. Where nothing else is left, requests wait for a
        /// place by priority.
        max_concurrent: Option<Setting<NonZeroU32>> = optional(),
        /// What it costs, in USD, or what it costs from which day on; a deployment's own takes the place of the
        /// model's.
        price: Option<Vec<PriceSection>> = read_by(prices),
        /// Dedicated only: when it is down, Pro/ requests may use shared deployments.
        // `Pro/` names promise reserved capacity; shared capacity in its place is opt-in.
        spill: Setting<bool> = or(false),
        /// Dedicated only: requests by plain names may use places that Pro/ requests did not need lately, where shared
        /// deployments have none. Needs max_concurrent.
        // Reserved capacity stays reserved.
        lend: Setting<bool> = or(false),
    }
}

keywords!(Endpoint {
    "chat" => Chat,
    "completions" => Completions,
    "embeddings" => Embeddings,
    "messages" => Messages,
    "responses" => Responses,
});
keywords!(Feature { "tools" => Tools, "vision" => Vision, "json_schema" => JsonSchema });
keywords!(Capacity { "shared" => Shared, "dedicated" => Dedicated });

impl ModelSection {
    pub(super) fn checked(name: Setting<String>, table: &mut Table<'_>) -> Self {
        check_name(table.diagnostics(), &name);
        if name.value.starts_with(RESERVED_PREFIX) {
            let message = format!("`{RESERVED_PREFIX}` begins the names of reserved capacity");
            let hint = "name the model without it and give a deployment `capacity = \"dedicated\"`";
            table.diagnostics().report_at(&name, message, hint.to_owned());
        }
        let model = Self::read(name, table);
        if table.is_empty_list("endpoints") {
            let hint = "remove the setting: the default follows from what its providers speak";
            table.report("endpoints", ValueError::hinting("a model that serves no endpoint", hint));
        }
        model
    }
}

fn deployments(key: SettingKey, table: &mut Table<'_>) -> Vec<DeploymentSection> {
    let Some(elements) = table.required_elements(key, "[{ provider = \"NAME\" }]") else {
        return Vec::new();
    };
    if elements.is_empty() {
        let hint = "name at least one provider: [{ provider = \"NAME\" }]";
        table.report(key.name, ValueError::hinting("nobody serves this model", hint));
    }
    elements.iter().filter_map(|element| element.table(DeploymentSection::checked)).collect()
}

impl DeploymentSection {
    fn checked(table: &mut Table<'_>) -> Self {
        let deployment = Self::read(table);
        for asked in [&deployment.spill, &deployment.lend] {
            if asked.value && deployment.capacity.value == Capacity::Shared {
                let message = "only dedicated capacity has this setting".to_owned();
                let hint = "remove it, or set `capacity = \"dedicated\"`".to_owned();
                table.diagnostics().report_at(asked, message, hint);
            }
        }
        if deployment.lend.value && deployment.max_concurrent.is_none() {
            let message = "capacity without a limit cannot be lent".to_owned();
            let hint = "set `max_concurrent`, of which a part is kept for Pro/ names, or remove it".to_owned();
            table.diagnostics().report_at(&deployment.lend, message, hint);
        }
        deployment
    }
}
