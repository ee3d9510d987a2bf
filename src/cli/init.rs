//! `tierway init`: writes a first configuration for the provider keys found in the environment.
//!
//! It writes the names of variables and must never write their values. It overwrites a file only if told to by
//! --force.

use super::print;
use crate::config::{Environment, ProcessEnvironment};
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
    /// `openai`, or a protocol that is not implemented: then its tables are written as comments.
    protocol: &'static str,
}

const OPENAI: &str = "openai";

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
        model: "accounts/fireworks/models/llama-v3p3-70b-instruct",
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
    let found: Vec<&KnownProvider> = HOSTS.iter().filter(|host| is_set(host.variable, &ProcessEnvironment)).collect();
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
    write!(anstream::stderr(), "{}", what_next(&found, &args.output))?;
    Ok(())
}

/// An empty variable counts as not set.
fn is_set(variable: &str, surroundings: &dyn Environment) -> bool {
    surroundings.variable(variable).is_some_and(|value| !value.trim().is_empty())
}

/// The text of the file.
fn configuration(found: &[&KnownProvider]) -> String {
    let (active, idle): (Vec<&KnownProvider>, Vec<&KnownProvider>) =
        found.iter().partition(|host| host.protocol == OPENAI);
    let mut text = HEADER.to_owned();
    if active.is_empty() {
        text.push_str(SIMULATED);
    }
    for host in &active {
        text.push_str(&tables(host));
    }
    for host in idle {
        let _ = writeln!(text, "# {} is set; the {} protocol is not built yet.", host.variable, host.protocol);
        for line in tables(host).trim_end().lines() {
            let _ = writeln!(text, "{}", format!("# {line}").trim_end());
        }
        text.push('\n');
    }
    let models: Vec<&str> = active.iter().map(|host| host.model).collect();
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
# price = {{ input = "0.00", output = "0.00" }}   # USD per million tokens, from the provider's list
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
    format!(
        "\nfrom {from}\n\nNext:\n  tierway check --config {path}\n  \
         tierway explain --config {path} --model auto\n  tierway serve --config {path}\n"
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

    #[test]
    fn two_hosts_share_the_work_and_one_waits() {
        let named = |names: &[&str]| -> Vec<&KnownProvider> {
            HOSTS.iter().filter(|host| names.contains(&host.name)).collect()
        };
        insta::assert_snapshot!("openai_groq_and_anthropic", configuration(&named(&["openai", "groq", "anthropic"])));
        insta::assert_snapshot!("nothing_found", configuration(&[]));
    }

    #[test]
    fn paths_are_pasted_whole() {
        let check = |path, expected| assert_eq!(pasted(path), expected);
        check("etc/tierway.toml", "etc/tierway.toml");
        check("my file.toml", "'my file.toml'");
        check("it's.toml", r"'it'\''s.toml'");
    }
}
