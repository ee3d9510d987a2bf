//! An explanation as text for people, in columns.

use super::explanation::{CandidateView, DeploymentView, ExplanationView, PlanView, RouteTerms};
use std::fmt::Write;

/// The whole text.
pub(super) fn of(explanation: &ExplanationView) -> String {
    let mut out = format!("{}\n", headline(explanation));
    // Writing to a string cannot fail.
    if let Some(refusal) = &explanation.refusal {
        let _ = writeln!(out, "\nrefused with {} {}:\n  {}", refusal.status, refusal.code, refusal.message);
    }
    if !explanation.usable.is_empty() {
        let _ = writeln!(out, "\nmay be asked for\n  {}", explanation.usable.join("\n  "));
    }
    let widths = ColumnWidths::of(&explanation.ways);
    for way in &explanation.ways {
        let _ = writeln!(out, "\n{}", begins(way, explanation));
        for (index, candidate) in way.candidate_models.iter().enumerate() {
            let _ = write!(out, "{}", candidate_view(index + 1, candidate, &widths));
        }
    }
    for never in &explanation.never_drawn {
        let _ = writeln!(out, "\n  never  {}: {}", never.part, never.why);
    }
    if !explanation.ways.is_empty() {
        let _ = write!(out, "\n{}", terms(&explanation.terms));
    }
    if !explanation.passed_over.is_empty() {
        let _ = writeln!(out, "\nnot tried");
        let width = explanation.passed_over.iter().map(|passed| passed.deployment.len()).max().unwrap_or(0);
        for passed in &explanation.passed_over {
            let _ = writeln!(out, "  {:width$}  {}", passed.deployment, passed.why);
        }
    }
    out
}

fn headline(explanation: &ExplanationView) -> String {
    let kind = match explanation.kind {
        None => String::new(),
        Some("reserved") => " is reserved capacity".to_owned(),
        Some(kind) => format!(" is {} {kind}", if kind == "alias" { "an" } else { "a" }),
    };
    let who = match (&explanation.key, &explanation.policy) {
        (Some(key), Some(policy)) => format!("key {key} under policy {policy}"),
        (None, Some(policy)) => format!("a key under policy {policy}"),
        (_, None) => "a key that may do everything".to_owned(),
    };
    let needs = match explanation.features.as_slice() {
        [] => String::new(),
        features => format!(" with {}", features.join(", ")),
    };
    format!("{}{kind}; {who} asks the {} endpoint{needs}", explanation.model, explanation.endpoint)
}

fn begins(way: &PlanView, explanation: &ExplanationView) -> String {
    if explanation.kind == Some("alias") {
        return format!("{:>7}  {}", percent(way.percent), way.begins);
    }
    "tried in this order".to_owned()
}

fn candidate_view(number: usize, candidate: &CandidateView, widths: &ColumnWidths) -> String {
    let tier = candidate.tier.as_ref().map_or("in no tier of the policy".to_owned(), |tier| format!("tier {tier}"));
    let first = candidate.first_percent.map_or(String::new(), |share| format!("; {} begin here", percent(share)));
    let mut out = format!("  {number}. {} ({tier}{first})\n", candidate.model);
    for deployment in &candidate.deployments {
        let _ = writeln!(out, "       {}", widths.row(deployment));
    }
    out
}

fn percent(share: f64) -> String {
    let text = format!("{share:.2}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn terms(terms: &RouteTerms) -> String {
    let among = match terms.balance {
        "weighted" => "drawn by weight",
        "cost" => "the cheapest first",
        "ordered" => "in this order",
        _ => "the faster of two drawn at random",
    };
    let home = terms.home_region.as_ref().map_or(String::new(), |region| format!(", in region {region} first"));
    let first = if terms.stream { "to the first token" } else { "to the whole answer" };
    let patience = terms.patience_ms.map_or(String::new(), |ms| format!("; {} {first}", duration(ms)));
    format!(
        "among a model's deployments: {among}{home}\n\
         after a failure: other regions first, at most {} attempts{patience}, {} in all\n",
        terms.max_attempts,
        duration(terms.total_ms)
    )
}

fn duration(ms: u64) -> String {
    match ms {
        _ if ms > 0 && ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

/// The widths of the columns of deployments, over all ways.
struct ColumnWidths {
    name: usize,
    region: usize,
}

impl ColumnWidths {
    fn of(ways: &[PlanView]) -> Self {
        let all = || ways.iter().flat_map(|way| &way.candidate_models).flat_map(|candidate| &candidate.deployments);
        Self {
            name: all().map(|deployment| deployment.name.len()).max().unwrap_or(0),
            region: all().map(|deployment| deployment.region.len()).max().unwrap_or(0),
        }
    }

    fn row(&self, deployment: &DeploymentView) -> String {
        let price = match &deployment.price {
            Some(price) => {
                let then = price.then.as_ref().map_or(String::new(), |then| {
                    format!(", from {} on ${} in, ${} out", then.from, then.input, then.output)
                });
                let from = price.catalogue.as_ref().map_or(String::new(), |day| format!(" (catalogue of {day})"));
                format!("${} in, ${} out per million tokens{then}{from}", price.input, price.output)
            }
            None => "no price".to_owned(),
        };
        let most = deployment.max_concurrent.map_or(String::new(), |most| format!(", at most {most} at once"));
        let (name, region) = (self.name, self.region);
        format!(
            "{:name$}  {:region$}  weight {}  {}{most}  {price}",
            deployment.name, deployment.region, deployment.weight, deployment.capacity
        )
    }
}
