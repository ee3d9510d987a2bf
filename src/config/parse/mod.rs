//! From the text to the mirror of the file, with every problem on the way.
//!
//! Each section is a function that reads as the list of its settings, each with its type and its
//! default, a named constant with its reason. A new setting is one line here, one field in
//! [`raw`](super::raw), one row in [`sentences`](super::sentences) and one in
//! `config/tierway.example.toml`; schema and documentation are made from these.
//!
//! It must never look a name up in another section: that is [`compile`](super::compile)'s.

mod keys;
mod models;
mod prices;
mod providers;
mod routing;
mod server;

use std::ops::Range;

use toml::de::DeTable;

use super::problem::ValueLocation;
use super::raw::Raw;
use super::reader::{Catalogue, Diagnostics, Table, ValueError};
use super::value::Name;

/// Settings whose value may be a secret: their lines are not shown when the file is not TOML.
const SECRET_NAMES: [&str; 8] =
    ["admin_token", "credential", "hash", "metrics_token", "secret", "shared", "url", "viewer_token"];

/// Tables without which there is nobody to ask and nothing to ask for.
const REQUIRED: [(&str, &str, &str); 2] = [
    ("providers", "no provider is configured", "add a section [providers.NAME] with its `protocol`"),
    ("models", "no model is configured", "add a section [models.\"NAME\"] with its `deployments`"),
];

/// Reads the text. What is wrong is on the desk afterwards.
pub(super) fn parse(diagnostics: &Diagnostics<'_>, text: &str) -> Raw {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        report_syntax_error(diagnostics, error);
    }
    if errors.is_empty() {
        return sections(diagnostics, document.get_ref());
    }
    let spans: Vec<_> = errors.iter().filter_map(toml::de::Error::span).collect();
    hide_secrets_by_line(diagnostics, text, &spans);
    let raw = sections(diagnostics, document.get_ref());
    diagnostics.drop_follow_up_problems(&spans, errors.len());
    raw
}

/// Every setting that [`parse`] would read.
pub(super) fn describe() -> Catalogue {
    let diagnostics = Diagnostics::describing();
    sections(&diagnostics, &DeTable::new());
    diagnostics.into_catalogue()
}

fn sections(diagnostics: &Diagnostics<'_>, document: &DeTable<'_>) -> Raw {
    Table::document(diagnostics, document, |file| {
        for (name, message, hint) in REQUIRED {
            file.require(name, message, hint);
        }
        let raw = Raw {
            server: file.overridable("server", server::server),
            store: file.overridable("store", server::store),
            telemetry: file.overridable("telemetry", server::telemetry),
            providers: file.named("providers", providers::provider),
            models: file.named("models", models::model),
            tiers: file.named("tiers", routing::tier),
            aliases: file.named("aliases", routing::alias),
            routing: file.overridable("routing", routing::routing),
            policies: file.named("policies", keys::policy),
            teams: file.named("teams", keys::team),
            keys: keys::keys(file),
        };
        file.table("drill", keys::drill);
        raw
    })
}

fn report_syntax_error(diagnostics: &Diagnostics<'_>, error: &toml::de::Error) {
    let hint = if error.message().starts_with("duplicate key") {
        "the same name is given above: keep one of the two"
    } else {
        "the file is TOML: strings in double quotes, tables in [brackets], one setting a line"
    };
    let location = error.span().map_or(ValueLocation::Unwritten, ValueLocation::File);
    let message = format!("not TOML: {}", error.message());
    diagnostics.report("", location, ValueError::hinting(message, hint));
}

/// Hides what follows the name of a secret on every line, and what follows a quote on the broken
/// ones: where a value ends, and whose it is, cannot be known there.
fn hide_secrets_by_line(diagnostics: &Diagnostics<'_>, text: &str, broken: &[Range<usize>]) {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\r', '\n']);
        let named = SECRET_NAMES.iter().filter_map(|name| content.find(name).map(|at| at + name.len()));
        let is_broken = broken.iter().any(|span| span.start <= start + line.len() && start <= span.end);
        let quoted = content.find(['"', '\'']).filter(|_| is_broken);
        if let Some(from) = named.chain(quoted).min() {
            diagnostics.hide(start + from..start + content.len());
        }
        start += line.len();
    }
}

/// Complains about a name that could not be a label.
fn check_name(diagnostics: &Diagnostics<'_>, name: &super::reader::Located<String>) {
    if let Some(wrong) = Name::fault(&name.value) {
        diagnostics.report(&name.path, name.location.clone(), wrong);
    }
}
