//! A story as text for people: plain, in columns, to be read from the top.

use super::story::{DeploymentTold, LegTold, Story, Terms, WayTold};
use std::fmt::Write;

/// The whole story.
pub(super) fn of(story: &Story) -> String {
    let mut out = format!("{}\n", headline(story));
    // Writing to a string cannot fail.
    if let Some(refusal) = &story.refusal {
        let _ = writeln!(out, "\nrefused with {} {}:\n  {}", refusal.status, refusal.code, refusal.message);
    }
    if !story.usable.is_empty() {
        let _ = writeln!(out, "\nmay be asked for\n  {}", story.usable.join("\n  "));
    }
    let widths = Widths::of(&story.ways);
    for way in &story.ways {
        let _ = writeln!(out, "\n{}", begins(way, story));
        for (index, leg) in way.legs.iter().enumerate() {
            let _ = write!(out, "{}", told_leg(index + 1, leg, &widths));
        }
    }
    for never in &story.never_drawn {
        let _ = writeln!(out, "\n  never  {}: {}", never.part, never.why);
    }
    if !story.ways.is_empty() {
        let _ = write!(out, "\n{}", terms(&story.terms));
    }
    if !story.passed_over.is_empty() {
        let _ = writeln!(out, "\nnot tried");
        let width = story.passed_over.iter().map(|passed| passed.deployment.len()).max().unwrap_or(0);
        for passed in &story.passed_over {
            let _ = writeln!(out, "  {:width$}  {}", passed.deployment, passed.why);
        }
    }
    out
}

fn headline(story: &Story) -> String {
    let kind = match story.kind {
        None => String::new(),
        Some("reserved") => " is reserved capacity".to_owned(),
        Some(kind) => format!(" is {} {kind}", if kind == "alias" { "an" } else { "a" }),
    };
    let who = match (&story.key, &story.policy) {
        (Some(key), Some(policy)) => format!("key {key} under policy {policy}"),
        (None, Some(policy)) => format!("a key under policy {policy}"),
        (_, None) => "a key that may do everything".to_owned(),
    };
    let needs = match story.features.as_slice() {
        [] => String::new(),
        features => format!(" with {}", features.join(", ")),
    };
    format!("{}{kind}; {who} asks the {} endpoint{needs}", story.model, story.endpoint)
}

fn begins(way: &WayTold, story: &Story) -> String {
    if story.kind == Some("alias") {
        return format!("{:>7}  {}", percent(way.percent), way.begins);
    }
    "tried in this order".to_owned()
}

fn told_leg(number: usize, leg: &LegTold, widths: &Widths) -> String {
    let tier = leg.tier.as_ref().map_or("in no tier of the policy".to_owned(), |tier| format!("tier {tier}"));
    let first = leg.first_percent.map_or(String::new(), |share| format!("; {} begin here", percent(share)));
    let mut out = format!("  {number}. {} ({tier}{first})\n", leg.model);
    for deployment in &leg.deployments {
        let _ = writeln!(out, "       {}", widths.row(deployment));
    }
    out
}

fn percent(share: f64) -> String {
    let text = format!("{share:.2}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn terms(terms: &Terms) -> String {
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

/// How wide the columns of deployments are, over all ways.
struct Widths {
    name: usize,
    region: usize,
}

impl Widths {
    fn of(ways: &[WayTold]) -> Self {
        let all = || ways.iter().flat_map(|way| &way.legs).flat_map(|leg| &leg.deployments);
        Self {
            name: all().map(|deployment| deployment.name.len()).max().unwrap_or(0),
            region: all().map(|deployment| deployment.region.len()).max().unwrap_or(0),
        }
    }

    fn row(&self, deployment: &DeploymentTold) -> String {
        let price = match &deployment.price {
            Some(price) => {
                let then = price.then.as_ref().map_or(String::new(), |then| {
                    format!(", from {} on ${} in, ${} out", then.from, then.input, then.output)
                });
                format!("${} in, ${} out per million tokens{then}", price.input, price.output)
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
