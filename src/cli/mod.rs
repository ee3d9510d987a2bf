//! The commands. They build every part and connect them, and have no rules of their own.
//!
//! Exit codes: 0 success, 1 a failure at run time, 2 wrong usage, 69 an address or the store is not available, 78
//! an invalid configuration. Output goes to stdout, messages to stderr.
//!
//! Start reading at [`serve`].

mod ask;
mod audit;
mod backup;
mod banner;
mod budgets;
pub mod check;
mod check_live;
mod client_target;
mod completed_names;
mod completions;
mod config_schema;
pub mod config_show;
mod context;
mod cost;
mod credits;
mod demo_store;
mod doctor;
mod drill;
pub mod environment;
mod explain;
mod former_place;
mod gateway_client;
mod healthcheck;
mod init;
mod keys;
mod logs;
mod migrate;
mod models;
mod operator;
mod operator_target;
mod page;
mod posture;
mod prices;
mod provider_probe;
mod provider_warnings;
pub mod reload;
mod residency;
mod secrets;
pub mod serve;
mod service_manager;
mod sla;
mod sla_closing;
mod sla_probe;
mod status;
mod store;
mod store_copy;
mod store_place;
mod table;
mod take_over;
mod teams;
mod terminal_screen;
mod time_range;
mod top;
mod trusted_roots;
mod usage;
mod value_parsers;
mod views;

use crate::config::{ConfigSource, ListenAddress, Problems, ProcessEnvironment, find};
use crate::domain::readable::controls_terminal;
use clap::{Args, Parser, Subcommand};
use std::borrow::Cow;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Once;

/// `EX_UNAVAILABLE` of sysexits: an address or the store is not available.
const EXIT_UNAVAILABLE: u8 = 69;

/// Clap's exit code too: the command line names something that does not exist.
const EXIT_USAGE: u8 = 2;

/// An OpenAI-compatible model gateway: tiers, measured failover, honest streams, keys with policies.
#[derive(Parser, Debug)]
#[command(name = "tierway", version = VERSION, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// The version, as `tierway version` and the build metric report it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Subcommand, Debug)]
enum Command {
    /// Serve requests; without a configuration, a demo with simulated providers
    Serve(ServeArgs),
    /// Write a first configuration from the provider keys in the environment
    Init(init::InitArgs),
    /// Print every problem of a configuration and exit with 78, or 0 when there is none
    Check(check::CheckArgs),
    /// Say what a gateway would meet here: providers, certificates, credentials, files, disk, clock; and what to do
    Doctor(doctor::DoctorArgs),
    /// Say where a request would go and why nowhere else, or what became of one
    Explain(explain::ExplainArgs),
    /// Show what a running gateway sends where, and what it does not: whose fault, since when, tried again when
    Status(status::StatusArgs),
    /// Show traffic and deployments of a running gateway as they change
    Top(top::TopArgs),
    /// Ask a model through a running gateway, and show the answer as it comes
    Ask(ask::AskArgs),
    /// Show what a key may write as `model`, asked of a running gateway, or all of the configuration
    Models(models::ModelsArgs),
    /// Make, list, rotate and take away keys, beside a running gateway or without one
    Keys {
        #[command(subcommand)]
        command: keys::KeysCommand,
    },
    /// Make and change teams, whose keys share a budget
    Teams {
        #[command(subcommand)]
        command: teams::TeamsCommand,
    },
    /// Grant prepaid credit to keys and teams, and show what is left
    Credits {
        #[command(subcommand)]
        command: credits::CreditsCommand,
    },
    /// Show who changed what, and verify that nothing of that record was
    Audit {
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// Show from the ledger where requests went, and whether any left the regions of its policy
    Residency {
        #[command(subcommand)]
        command: residency::ResidencyCommand,
    },
    /// Show how the SLAs of policies are kept, and close a month
    Sla {
        #[command(subcommand)]
        command: sla::SlaCommand,
    },
    /// Break a simulated region of this configuration under load, and judge what clients saw
    Drill(drill::DrillArgs),
    /// Answer what a buyer asks from what was measured, or say how to measure it
    Posture(posture::PostureArgs),
    /// Sum up the ledger: requests, tokens and cost, by key, team, model, day and more
    Usage(usage::UsageArgs),
    /// Show a line for each request in columns, from the ledger; -f shows further ones as they end
    Logs(logs::LogsArgs),
    /// Say what tokens cost, and what they would have cost with another split or price
    Cost(cost::CostArgs),
    /// Show the prices and limits of known models, and take newer ones
    Prices {
        #[command(subcommand)]
        command: prices::PricesCommand,
    },
    /// Show every budget: its window, its limit, what is spent of it and what is leased
    Budgets(budgets::BudgetsArgs),
    /// Copy the database, also while a gateway writes it
    Backup(backup::BackupArgs),
    /// Move the store between a SQLite file and a PostgreSQL server
    Store {
        #[command(subcommand)]
        command: store_copy::StoreCommand,
    },
    /// Bring the database up to date without serving; `serve` does it by itself
    Migrate(migrate::MigrateArgs),
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Ask a running gateway whether it lives; for container health checks
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print a script that completes the command line, for a shell to source
    Completions(completions::CompletionsArgs),
    /// Write manual pages
    Man(completions::ManArgs),
    /// Print the version
    Version,
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print the effective configuration, secrets masked, with the origin of each value
    Show {
        #[command(flatten)]
        config_args: ConfigArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug, Default)]
struct ConfigArgs {
    /// The configuration file [default: ./tierway.toml, /etc/tierway/tierway.toml, the demo]
    #[arg(long, short, value_name = "FILE", env = "TIERWAY_CONFIG")]
    config: Option<PathBuf>,
}

/// Arguments of `serve`.
#[derive(Args, Debug, Default)]
pub struct ServeArgs {
    #[command(flatten)]
    config_args: ConfigArgs,
    /// Where to listen, in place of `[server] listen`: 127.0.0.1:8080, localhost:8080, :8080 or unix:/path
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<ListenAddress>,
    /// Serve although the configuration asks for things that are not built yet
    #[arg(long)]
    allow_unenforced: bool,
    /// Continue where a running gateway is: get its listening sockets, then have it drain and end. Nothing is refused
    /// meanwhile. If none runs, this is a usual start
    #[arg(long)]
    take_over: bool,
    /// The socket by which a gateway is taken over from [default: the database's path and `.take-over`]
    #[arg(long, value_name = "PATH", env = "TIERWAY_TAKE_OVER_SOCKET")]
    take_over_socket: Option<PathBuf>,
}

/// Runs the command line and returns the exit code.
pub fn main() -> ExitCode {
    completions::answer_shell();
    let command = Cli::parse().command.unwrap_or(Command::Serve(ServeArgs::default()));
    let done = match command {
        Command::Serve(args) => serve::serve(&args),
        Command::Init(args) => init::init(&args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => check::check(&args).map_err(Into::into),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Status(args) => status::status(&args),
        Command::Top(args) => top::top(&args),
        Command::Ask(args) => ask::ask(&args),
        Command::Models(args) => models::models(&args),
        Command::Keys { command } => keys::keys(&command),
        Command::Teams { command } => teams::teams(&command),
        Command::Credits { command } => credits::credits(&command),
        Command::Audit { command } => audit::audit(&command),
        Command::Residency { command } => residency::residency(&command),
        Command::Sla { command } => sla::sla(&command),
        Command::Drill(args) => drill::drill(&args),
        Command::Posture(args) => posture::posture(&args),
        Command::Usage(args) => usage::usage(&args),
        Command::Logs(args) => logs::logs(&args),
        Command::Cost(args) => cost::cost(&args),
        Command::Prices { command } => prices::prices(&command),
        Command::Budgets(args) => budgets::budgets(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Store { command } => store_copy::store(&command),
        Command::Migrate(args) => migrate::migrate(&args),
        Command::Config { command: ConfigCommand::Show { config_args, json } } => {
            config_show::config_show(config_args.config.as_deref(), json).map_err(Into::into)
        }
        Command::Config { command: ConfigCommand::Schema } => {
            config_schema::config_schema().map(|()| ExitCode::SUCCESS)
        }
        Command::Healthcheck(args) => healthcheck::healthcheck(&args),
        Command::Completions(args) => completions::completions(&args).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => completions::man(&args).map(|()| ExitCode::SUCCESS),
        Command::Version => {
            println!("tierway {VERSION}");
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {}", printable(&format!("{error:#}")));
        ExitCode::FAILURE
    })
}

/// Finds the configuration of a command: the file `named`, or the usual ones. Says once that there is none, where the
/// command is about the demo therefore.
///
/// # Errors
/// The one problem that the file cannot be read.
fn find_config(named: Option<&Path>) -> Result<ConfigSource, Problems> {
    static SAID: Once = Once::new();
    let source = find(named, &ProcessEnvironment)?;
    if source.is_demo() {
        SAID.call_once(|| {
            context::note(
                "note: there is no configuration file (--config, TIERWAY_CONFIG, ./tierway.toml or \
                 /etc/tierway/tierway.toml): this shows the built-in demo",
            );
        });
    }
    Ok(source)
}

/// `text` for a terminal: characters that control it, or change the direction of writing, as JSON escapes them. Names and
/// reasons are what somebody typed, somewhere.
fn printable(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c == '\n' || c == '\t' || !controls_terminal(c);
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    Cow::Owned(out)
}

/// Writes output to stdout. A reader may close it early: `config show | head`.
fn print(text: &str) -> io::Result<()> {
    // The stream strips colours where there is no terminal or NO_COLOR is set.
    match write!(anstream::stdout(), "{}", printable(text)) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
