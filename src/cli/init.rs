//! `tierway init`: writes a first configuration for the provider keys found in the environment.
//!
//! It writes the names of variables and must never write their values. It overwrites a file only if told to by
//! --force.

use super::{print, provider_warnings};
use crate::config::{Environment, PriceCatalogue, ProcessEnvironment};
use crate::domain::secret::Secret;
use anyhow::Context;
use clap::Args;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Arguments of `init`.
#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "tierway.toml")]
    output: PathBuf,
    /// Replace the file where there is one
    #[arg(long)]
    force: bool,
}

/// A provider that is recognised by the usual variable of its key.
struct KnownProvider {
    /// The environment variable of its key.
    variable: &'static str,
    /// The provider's name in the file.
    name: &'static str,
    /// The base URL of its API.
    base_url: &'static str,
    /// A small model of it, for the first configuration.
    model: &'static str,
    /// What it speaks.
    protocol: &'static str,
}

const OPENAI: &str = "openai";
/// Where the official clients find the address of another host.
const BASE_URL_VARIABLE: &str = "OPENAI_BASE_URL";

/// In the order of preference: the first that is found serves the default tier.
const HOSTS: [KnownProvider; 8] = [
    KnownProvider {
        variable: "OPENAI_API_KEY",
        name: "openai",
        base_url: "https://api.openai.com/v1",
        model: "gpt-4o-mini",
        protocol: OPENAI,
    },
    KnownProvider {
        variable: "DEEPSEEK_API_KEY",
        name: "deepseek",
        base_url: "https://api.deepseek.com/v1",
        model: "deepseek-chat",
        protocol: OPENAI,
    },
    KnownProvider {
        variable: "GROQ_API_KEY",
        name: "groq",
        base_url: "https://api.groq.com/openai/v1",
        model: "llama-3.3-70b-versatile",
        protocol: OPENAI,
    },
    KnownProvider {
        variable: "TOGETHER_API_KEY",
        name: "together",
        base_url: "https://api.together.xyz/v1",
        model: "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        protocol: OPENAI,
    },
    KnownProvider {
        variable: "MISTRAL_API_KEY",
        name: "mistral",
        base_url: "https://api.mistral.ai/v1",
        model: "mistral-small-latest",
        protocol: OPENAI,
    },
    KnownProvider {
        variable: "OPENROUTER_API_KEY",
        name: "openrouter",
        base_url: "https://openrouter.ai/api/v1",
        model: "openai/gpt-4o-mini",
        protocol: OPENAI,
    },
    KnownProvider {
        variable: "FIREWORKS_API_KEY",
        name: "fireworks",
        base_url: "https://api.fireworks.ai/inference/v1",
        model: "accounts/fireworks/models/gpt-oss-120b",
        protocol: OPENAI,
    },
    KnownProvider {
        variable: "ANTHROPIC_API_KEY",
        name: "anthropic",
        base_url: "https://api.anthropic.com",
        model: "claude-3-5-haiku-latest",
        protocol: "anthropic",
    },
];

/// Writes the file, prints its path and the next steps.
///
/// # Errors
/// If there is a file already, or it cannot be written.
pub(super) fn init(args: &InitArgs) -> anyhow::Result<()> {
    let set: Vec<&KnownProvider> = HOSTS.iter().filter(|host| is_set(host.variable, &ProcessEnvironment)).collect();
    let (ours, found): (Vec<_>, Vec<_>) = set.into_iter().partition(|host| is_ours(host.variable, &ProcessEnvironment));
    let path = args.output.display();
    let mut options = OpenOptions::new();
    options.write(true);
    if args.force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let file = options.open(&args.output);
    if file.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
        anyhow::bail!("{path} is there already: name another with --output, or replace it with --force");
    }
    let written = file.and_then(|mut file| file.write_all(configuration(&found).as_bytes()));
    written.with_context(|| format!("cannot write {path}"))?;
    print(&format!("{path}\n"))?;
    let mut messages = anstream::stderr();
    for host in ours {
        writeln!(
            messages,
            "warning: {} holds a key of a Tierway gateway, not of a provider: it is left out",
            host.variable
        )?;
    }
    for warning in base_url_warnings(&found, &ProcessEnvironment) {
        writeln!(messages, "warning: {warning}")?;
    }
    write!(messages, "{}", what_next(&found, &args.output))?;
    Ok(())
}

/// An empty variable counts as not set.
fn is_set(variable: &str, surroundings: &dyn Environment) -> bool {
    surroundings.variable(variable).is_some_and(|value| !value.trim().is_empty())
}

/// Whether a variable holds a key of a gateway: it was set to use one, as `serve` says.
fn is_ours(variable: &str, surroundings: &dyn Environment) -> bool {
    surroundings.variable(variable).is_some_and(|value| provider_warnings::is_ours(&Secret::new(value.trim())))
}

/// What is to be said of `OPENAI_BASE_URL`, by which the official clients reach another host: its value is not written.
fn base_url_warnings(found: &[&KnownProvider], surroundings: &dyn Environment) -> Vec<String> {
    let host = found.iter().find(|host| host.variable == "OPENAI_API_KEY");
    let set = surroundings.variable(BASE_URL_VARIABLE).filter(|url| !url.trim().is_empty());
    let (Some(host), Some(url)) = (host, set) else { return Vec::new() };
    if url.trim().trim_end_matches('/') == host.base_url {
        return Vec::new();
    }
    let elsewhere = format!(
        "{BASE_URL_VARIABLE} is set, and the file asks {}: write base_url = \"env:{BASE_URL_VARIABLE}\" where that is \
         meant",
        host.base_url
    );
    let odd = provider_warnings::of_base_url(url.trim()).into_iter().map(|odd| format!("{BASE_URL_VARIABLE}: {odd}"));
    std::iter::once(elsewhere).chain(odd).collect()
}

/// The text of the file.
fn configuration(found: &[&KnownProvider]) -> String {
    let mut text = HEADER.to_owned();
    if found.is_empty() {
        text.push_str(SIMULATED);
    }
    for host in found {
        text.push_str(&tables(host));
    }
    let models: Vec<&str> = found.iter().map(|host| host.model).collect();
    text.push_str(&tiers(if models.is_empty() { &[SIMULATED_MODEL] } else { &models }));
    text.push_str(FOOTER);
    text
}

fn tables(host: &KnownProvider) -> String {
    let KnownProvider { variable, name, base_url, model, protocol } = host;
    format!(
        r#"[providers.{name}]
protocol   = "{protocol}"
base_url   = "{base_url}"
credential = "env:{variable}"

[models."{model}"]
# Its price, context and max_output are the price catalogue's (`tierway prices show {model}`);
# what is written here takes their place:  price = {{ input = "0.00", output = "0.00" }}   # USD per million tokens
deployments = [{{ provider = "{name}" }}]

"#
    )
}

fn tiers(models: &[&str]) -> String {
    let (first, others) = models.split_first().expect("there is always a model");
    let mut text = format!("{TIERS}[tiers.default]\nmodels = [\"{first}\"]\n");
    if !others.is_empty() {
        let others: Vec<String> = others.iter().map(|model| format!("\"{model}\"")).collect();
        let _ = write!(text, "then   = [\"fallback\"]\n\n[tiers.fallback]\nmodels = [{}]\n", others.join(", "));
    }
    text
}

/// The model of the file if no provider key is found.
const SIMULATED_MODEL: &str = "demo";

const HEADER: &str = "\
# Written by `tierway init`. Secrets stay in the environment; this file only names them.
#
#   tierway check      every problem at once
#   tierway explain    where a request would go, and why
#   tierway serve      applies a change of this file while it runs

# --- who serves ---------------------------------------------------------------------------

";

const SIMULATED: &str = "\
# No provider key was found in the environment. This provider answers by itself, without a network.
[providers.sim]
protocol = \"sim\"

[models.demo]
deployments = [{ provider = \"sim\" }]

";

const TIERS: &str = "\
# --- how it is routed ---------------------------------------------------------------------

# Tried in this order. Clients may ask for a model, for a tier, or for `auto`.
";

const FOOTER: &str = r#"
[aliases.auto]
split = { default = 100 }

# --- who may ask, for what ----------------------------------------------------------------

[policies.standard]
tiers               = ["*"]
requests_per_minute = 600

# Without a key here, `tierway serve` makes one for each run and serves loopback only. For a key
# that stays, run  export MY_APP_KEY="tw_$(openssl rand -hex 32)"  and uncomment the lines below.
# [[keys]]
# name   = "my-app"
# policy = "standard"
# secret = "env:MY_APP_KEY"
"#;

fn what_next(found: &[&KnownProvider], path: &Path) -> String {
    let names: Vec<&str> = found.iter().map(|host| host.variable).collect();
    let from = if names.is_empty() { "no provider key: simulated".to_owned() } else { names.join(", ") };
    let path = pasted(&path.display().to_string());
    let prices = if found.is_empty() {
        String::new()
    } else {
        format!("prices: catalogue of {}\n", PriceCatalogue::built_in().as_of().text)
    };
    let endpoint = match found {
        [host] if host.protocol != OPENAI => " --endpoint messages",
        _ => "",
    };
    format!(
        "\nfrom {from}\n{prices}\nNext:\n  tierway check --config {path}\n  \
         tierway explain --config {path} --model auto{endpoint}\n  tierway serve --config {path}\n"
    )
}

/// A path, quoted for a shell.
fn pasted(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-');
    if path.bytes().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CatalogueMatch;

    #[test]
    fn the_hosts_that_are_found_share_the_work() {
        let named = |names: &[&str]| -> Vec<&KnownProvider> {
            HOSTS.iter().filter(|host| names.contains(&host.name)).collect()
        };
        insta::assert_snapshot!("openai_groq_and_anthropic", configuration(&named(&["openai", "groq", "anthropic"])));
        insta::assert_snapshot!("nothing_found", configuration(&[]));
    }

    #[test]
    fn what_is_written_is_not_odd() {
        for host in HOSTS.iter().filter(|host| host.protocol == OPENAI) {
            assert_eq!(provider_warnings::of_base_url(host.base_url), Vec::<String>::new(), "{}", host.name);
        }
    }

    #[test]
    fn the_catalogue_knows_every_model_that_is_written() {
        let catalogue = PriceCatalogue::built_in();
        for host in &HOSTS {
            let found = catalogue.find(host.base_url, host.model).expect("the built-in catalogue can be read");
            let Some(CatalogueMatch::Found(entry)) = found else { panic!("{}: {found:?}", host.model) };
            assert!(entry.prices.is_some() && entry.context.is_some(), "{entry:?}");
        }
    }

    #[test]
    fn paths_are_pasted_whole() {
        let check = |path, expected| assert_eq!(pasted(path), expected);
        check("etc/tierway.toml", "etc/tierway.toml");
        check("my file.toml", "'my file.toml'");
        check("it's.toml", r"'it'\''s.toml'");
    }
}
