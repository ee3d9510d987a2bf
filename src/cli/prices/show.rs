//! `tierway prices show`: what the catalogue knows, whether or not it is charged.

use super::{PricesShowArgs, current, usage};
use crate::cli::print;
use crate::cli::table::{NONE, grouped, table};
use crate::config::{
    CatalogueEntry, CatalogueError, CatalogueHost, CatalogueMatch, HostQuirks, ListedPrice, OutputCeiling,
    PriceCatalogue,
};
use serde_json::{Map, Value, json};
use std::fmt::{Alignment, Write};
use std::process::ExitCode;

pub(super) fn show(args: &PricesShowArgs) -> anyhow::Result<ExitCode> {
    let catalogue = current(&args.config_args)?;
    let Some(model) = &args.model else {
        let text = if args.json { format!("{:#}\n", hosts_json(&catalogue)?) } else { hosts_text(&catalogue)? };
        print(&text)?;
        return Ok(ExitCode::SUCCESS);
    };
    let entries = entries(&catalogue, model)?;
    if entries.is_empty() {
        let origins: Vec<String> = catalogue.layers().map(origin).collect();
        return Ok(usage(&format!(
            "the {} does not know {model}; without a name, `prices show` lists its hosts",
            origins.join(" or the ")
        )));
    }
    let text = if args.json {
        let entries: Vec<Value> = entries.iter().map(|(host, entry)| entry_json(&host.quirks, entry)).collect();
        format!("{:#}\n", json!({ "entries": entries }))
    } else {
        catalogue.layers().map(|layer| layer_text(layer, &entries)).collect()
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The entry that `model` has at each host that knows it. Of hosts of one name the first counts.
fn entries<'c>(
    catalogue: &'c PriceCatalogue,
    model: &str,
) -> Result<Vec<(&'c CatalogueHost, CatalogueEntry)>, CatalogueError> {
    let mut out: Vec<(&CatalogueHost, CatalogueEntry)> = Vec::new();
    for host in catalogue.layers().flat_map(PriceCatalogue::hosts) {
        let found = match host.entry(model)? {
            Some(entry) => Some(entry),
            None => match catalogue.find_at(host, model)? {
                CatalogueMatch::Found(entry) => Some(*entry),
                CatalogueMatch::Ambiguous(_) | CatalogueMatch::Unknown => None,
            },
        };
        // What a host has of another one is shown there.
        let is_new = |entry: &CatalogueEntry| out.iter().all(|(_, known)| known.host != entry.host);
        out.extend(found.filter(is_new).map(|entry| (host, entry)));
    }
    Ok(out)
}

/// Of `entries` those of one catalogue, with where they are from.
fn layer_text(layer: &PriceCatalogue, entries: &[(&CatalogueHost, CatalogueEntry)]) -> String {
    let own = entries.iter().filter(|(host, _)| layer.hosts().iter().any(|known| std::ptr::eq(known, *host)));
    let text: String = own.map(|(_, entry)| entry_text(entry)).collect();
    if text.is_empty() { text } else { format!("{}\n{text}", origin(layer)) }
}

/// `catalogue of 2026-11-30 (built in)`
fn origin(catalogue: &PriceCatalogue) -> String {
    let file = catalogue.file().map_or_else(|| "built in".to_owned(), |file| file.display().to_string());
    format!("catalogue of {} ({file})", catalogue.as_of().text)
}

fn hosts_text(catalogue: &PriceCatalogue) -> Result<String, CatalogueError> {
    let head = [
        ("host", Alignment::Left),
        ("models", Alignment::Right),
        ("output ceiling", Alignment::Left),
        ("stream_options", Alignment::Left),
        ("headers", Alignment::Left),
        ("address", Alignment::Left),
    ];
    let row = |host: &CatalogueHost| -> Result<Vec<String>, CatalogueError> {
        let headers = host.quirks.headers.join(" ");
        Ok(vec![
            host.name.clone(),
            host.model_names()?.count().to_string(),
            ceiling(&host.quirks).to_owned(),
            if host.quirks.stream_options == Some(false) { "refused" } else { "accepted" }.to_owned(),
            if headers.is_empty() { NONE.to_owned() } else { headers },
            host.addresses().join(" "),
        ])
    };
    let layer = |layer: &PriceCatalogue| -> Result<String, CatalogueError> {
        let rows = layer.hosts().iter().map(row).collect::<Result<Vec<_>, _>>()?;
        Ok(format!("{}, made from {}\n\n{}", origin(layer), layer.source(), table(&head, &rows)))
    };
    Ok(catalogue.layers().map(layer).collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// The member by which a host takes the ceiling of the output.
fn ceiling(quirks: &HostQuirks) -> &'static str {
    match quirks.output_ceiling {
        Some(OutputCeiling::MaxCompletionTokens) => "max_completion_tokens",
        Some(OutputCeiling::MaxTokens) | None => "max_tokens",
    }
}

fn hosts_json(catalogue: &PriceCatalogue) -> Result<Value, CatalogueError> {
    let host = |host: &CatalogueHost| -> Result<Value, CatalogueError> {
        Ok(json!({
            "name": host.name,
            "address": host.addresses(),
            "output_ceiling": ceiling(&host.quirks),
            "stream_options": host.quirks.stream_options != Some(false),
            "headers": host.quirks.headers,
            "models": host.model_names()?.collect::<Vec<_>>(),
        }))
    };
    let layer = |layer: &PriceCatalogue| -> Result<Value, CatalogueError> {
        Ok(json!({
            "as_of": &*layer.as_of().text,
            "file": layer.file(),
            "source": layer.source(),
            "hosts": layer.hosts().iter().map(host).collect::<Result<Vec<_>, _>>()?,
        }))
    };
    Ok(json!({ "catalogues": catalogue.layers().map(layer).collect::<Result<Vec<_>, _>>()? }))
}

fn entry_text(entry: &CatalogueEntry) -> String {
    let tokens = |count: Option<u64>| count.map_or_else(|| NONE.to_owned(), |count| grouped(count.into()));
    let mut out = format!(
        "\n{} {}\n  context {}, longest output {}",
        entry.host,
        entry.name,
        tokens(entry.context),
        tokens(entry.max_output)
    );
    // Writing to a string cannot fail.
    if let Some(image) = entry.image_tokens {
        let _ = write!(out, ", an image about {} and at most {}", image.typical, image.most);
    }
    out.push('\n');
    for price in &entry.listed {
        let _ = writeln!(out, "  {}{}", conditions(price), amounts(&price.amounts));
    }
    for variant in &entry.variants {
        let _ = writeln!(out, "  with {}: {}", variant.when, amounts(&variant.amounts));
    }
    let uncharged = entry.uncharged();
    if !uncharged.is_empty() {
        let _ = writeln!(out, "  not charged by Tierway: {}", uncharged.join(", "));
    }
    if entry.differs_by_hour() {
        out.push_str("  differs by the hour: the highest is charged\n");
    }
    out
}

fn conditions(price: &ListedPrice) -> String {
    let from = price.from.as_ref().map_or(String::new(), |day| format!("from {day}, "));
    let above = price.above.map_or(String::new(), |tokens| format!("above {} input tokens, ", grouped(tokens.into())));
    let when = format!("{from}{above}");
    if when.is_empty() { "USD per million tokens: ".to_owned() } else { format!("{}: ", when.trim_end_matches(", ")) }
}

fn amounts(amounts: &[(String, String)]) -> String {
    amounts.iter().map(|(name, usd)| format!("{name} {usd}")).collect::<Vec<_>>().join(", ")
}

fn entry_json(quirks: &HostQuirks, entry: &CatalogueEntry) -> Value {
    let map = |amounts: &[(String, String)]| -> Map<String, Value> {
        amounts.iter().map(|(name, usd)| (name.clone(), usd.as_str().into())).collect()
    };
    let price = |price: &ListedPrice| json!({ "from": price.from, "above": price.above, "by_hour": price.by_hour, "usd": map(&price.amounts) });
    let variants = entry.variants.iter().map(|one| json!({ "when": one.when, "usd": map(&one.amounts) }));
    json!({
        "host": entry.host,
        "name": entry.name,
        "as_of": &*entry.as_of.text,
        "context": entry.context,
        "max_output": entry.max_output,
        "image_tokens": entry.image_tokens.map(|image| json!({ "typical": image.typical, "most": image.most })),
        "prices": entry.listed.iter().map(price).collect::<Vec<_>>(),
        "variants": variants.collect::<Vec<_>>(),
        "not_charged": entry.uncharged(),
        "output_ceiling": ceiling(quirks),
        "stream_options": quirks.stream_options != Some(false),
        "headers": quirks.headers,
    })
}
