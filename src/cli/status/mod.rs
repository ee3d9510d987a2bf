//! `tierway status`: what a running gateway sends where, what it does not, and whose fault that is.
//!
//! It asks the admin API of the gateway, because breakers, rests and pauses are in its memory only, and shows the answer.
//! It must never start anything, and changes nothing but the pause that `--resume` ends.
//!
//! Start reading at [`status`]; how the answer is shown is in `text.rs`.

mod text;

use super::gateway_client::{GatewayClient, GatewayClientError};
use super::operator_target::OperatorTargetArgs;
use super::store::CommandError;
use super::{EXIT_USAGE, printable};
use crate::admin::parse_duration_ms;
use crate::clock::Clock;
use clap::Args;
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Where the status is.
const PATH: &str = "/admin/v1/status";
/// Moves a terminal's cursor to the top, and clears what is below.
const REDRAW: &str = "\x1b[H\x1b[J";

const EXAMPLES: &str = "\
Exit codes: 0 the status is shown; 1 the gateway was not reached, or refused the token; 2 with --check, if a
deployment does not get its traffic.

Examples:
  tierway status                                # beside the gateway: its configuration names address and token
  tierway status --watch                        # redraws every second, until Ctrl-C
  TIERWAY_ADMIN_TOKEN=twa_... tierway status --url https://gateway.example:8081
  tierway status --resume us/gpt-4o             # its budgets may be asked for again
  tierway status --check > /dev/null || echo 'something does not flow'";

/// Arguments of `status`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    target: OperatorTargetArgs,
    /// Show it again and again
    #[arg(long, conflicts_with = "check")]
    watch: bool,
    /// How often, with --watch
    #[arg(long, value_name = "DURATION", value_parser = pause, default_value = "1s", requires = "watch")]
    every: Duration,
    /// Exit with 2 if a deployment does not get its traffic
    #[arg(long)]
    check: bool,
    /// Let requests with a budget go again to a deployment whose answers cost more than was held; needs the admin token
    #[arg(long, value_name = "DEPLOYMENT", conflicts_with = "watch")]
    resume: Option<String>,
    /// Print JSON; with --watch, an object a line
    #[arg(long)]
    json: bool,
}

fn pause(text: &str) -> Result<Duration, &'static str> {
    let ms = parse_duration_ms(text).and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0);
    ms.map(Duration::from_millis).ok_or("write a duration such as 1s, 30s or 5m")
}

/// Shows the status of a running gateway.
///
/// # Errors
/// Only what the system refuses.
pub(super) fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let client = match args.target.client(args.resume.is_some()) {
        Ok(client) => client,
        Err(error) => return error.print(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shown = runtime.block_on(async {
        let answer = match &args.resume {
            Some(deployment) => resume(&client, deployment).await?,
            None => ask(&client).await?,
        };
        show(args, &answer).map_err(CommandError::failed)?;
        if args.watch {
            watch(args, &client).await.map_err(CommandError::failed)?;
        }
        Ok::<_, CommandError>(answer)
    });
    match shown {
        Ok(answer) if args.check && answer["flows"] != true => Ok(ExitCode::from(EXIT_USAGE)),
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) => error.print(),
    }
}

/// Shows it until the reader of the output leaves. A gateway that is gone may come back.
async fn watch(args: &StatusArgs, client: &GatewayClient) -> io::Result<()> {
    loop {
        Clock.sleep(args.every).await;
        let shown = match ask(client).await {
            Ok(answer) => show(args, &answer),
            Err(error) => {
                clear(args)?;
                error.print().map(drop).map_err(io::Error::other)
            }
        };
        match shown {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            shown => shown?,
        }
    }
}

fn show(args: &StatusArgs, answer: &Value) -> io::Result<()> {
    clear(args)?;
    let mut out = io::stdout().lock();
    match (args.json, args.watch) {
        (true, true) => writeln!(out, "{}", printable(&answer.to_string()))?,
        (true, false) => writeln!(out, "{}", printable(&format!("{answer:#}")))?,
        (false, watched) => {
            let end = if watched && !out.is_terminal() { "\n" } else { "" };
            write!(out, "{}{end}", printable(&text::text(answer, Clock.unix_ms())))?;
        }
    }
    out.flush()
}

/// Clears a terminal for what is shown next.
fn clear(args: &StatusArgs) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if args.watch && !args.json && out.is_terminal() { write!(out, "{REDRAW}") } else { Ok(()) }
}

/// The status that the gateway answers.
///
/// # Errors
/// Why there is none, with what to do.
pub(super) async fn ask(client: &GatewayClient) -> Result<Value, CommandError> {
    request(client, Method::GET, PATH).await.map_err(|error| match error {
        GatewayClientError::Status(status) => CommandError::failed(format!(
            "{}{PATH} answers {status}\n  help: is this the operators' address of a gateway of this version?",
            client.url
        )),
        other => client.refused(other),
    })
}

/// Ends the pause of budgeted requests at `deployment`; returns the status after that.
async fn resume(client: &GatewayClient, deployment: &str) -> Result<Value, CommandError> {
    let path = format!("/admin/v1/deployments/{}/resume", utf8_percent_encode(deployment, NON_ALPHANUMERIC));
    request(client, Method::POST, &path).await.map_err(|error| match error {
        GatewayClientError::Status(StatusCode::NOT_FOUND) => CommandError::failed(format!(
            "the gateway at {} has no deployment '{deployment}'\n  help: `tierway status` lists them by their names",
            client.url
        )),
        GatewayClientError::Status(StatusCode::FORBIDDEN) => CommandError::failed(
            "the viewer token may change nothing\n  help: put the admin token into TIERWAY_ADMIN_TOKEN",
        ),
        other => client.refused(other),
    })
}

async fn request(client: &GatewayClient, method: Method, path: &str) -> Result<Value, GatewayClientError> {
    let body = client.request(method, path).await?;
    serde_json::from_slice(&body)
        .map_err(|error| GatewayClientError::Unreachable(format!("it answers no JSON: {error}")))
}
