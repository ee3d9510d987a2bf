//! `tierway top`: traffic and deployments of a running gateway as they change, for people without a browser.
//!
//! It asks what the dashboard asks: the event stream for what ends each second, the status for states. A gateway that is gone may
//! come back: what was known stays, and is said to be old.
//!
//! Start reading at [`top`]; what is known is in `figures.rs`, how it is shown in `view.rs`.

mod figures;
mod view;

use super::gateway_client::{GatewayClient, GatewayClientError};
use super::operator_target::OperatorTargetArgs;
use super::status;
use super::store::CommandError;
use super::terminal_screen::{self, ScreenKeys, TerminalScreen};
use crate::clock::Clock;
use crate::config::{Environment, ProcessEnvironment};
use crate::protocol::sse::SseReader;
use clap::Args;
use figures::{GatewayFigures, KeyOutcome};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use ratatui::crossterm::event::{self, Event};
use serde_json::Value;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const LIVE: &str = "/admin/v1/live";
/// What the last day cost.
const SPENT: &str = "/admin/v1/usage?by=policy&since=24h";
/// How often each is asked, and how often the screen is drawn without a key.
const STATUS_EVERY: Duration = Duration::from_secs(1);
const SPENT_EVERY: Duration = Duration::from_secs(10);
const DRAWN_EVERY: Duration = Duration::from_millis(500);
/// The pause before it connects again.
const CONNECT_AGAIN: Duration = Duration::from_secs(1);
/// The longest event that is read, in bytes.
const EVENT_MOST: usize = 4 << 20;

const EXAMPLES: &str = "\
Keys: q, Esc or Ctrl-C ends it; up and down move; / searches deployments, tiers, regions and states, Enter keeps the
search, Esc takes it away.

Exit codes: 0 it was ended; 1 the gateway was not reached at the start, or refused the token; 2 stdout is no terminal.

Examples:
  tierway top                                   # beside the gateway: its configuration names address and token
  TIERWAY_ADMIN_TOKEN=twa_... tierway top --url https://gateway.example:8081";

/// Arguments of `top`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct TopArgs {
    #[command(flatten)]
    target: OperatorTargetArgs,
}

/// Shows a running gateway until a key ends it.
///
/// # Errors
/// Only what the system refuses.
pub(super) fn top(args: &TopArgs) -> anyhow::Result<ExitCode> {
    if !terminal_screen::is_possible(ProcessEnvironment.variable("TERM").as_deref()) {
        let why = "stdout is no terminal that can be drawn on\n  help: `tierway status --watch` prints lines, `--json` \
                   objects";
        return CommandError::usage(why).print();
    }
    let client = match args.target.client(false) {
        Ok(client) => client,
        Err(error) => return error.print(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(show(&client)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => error.print(),
    }
}

async fn show(client: &GatewayClient) -> Result<(), CommandError> {
    // Before the screen is taken: what is wrong at the start is said as every command says it.
    let figures = Mutex::new(GatewayFigures::new(client.url.to_string(), &status::ask(client).await?));
    let mut terminated = signal(SignalKind::terminate()).map_err(CommandError::failed)?;
    terminal_screen::restore_on_panic();
    let screen = TerminalScreen::open(ScreenKeys::EachKey).map_err(CommandError::failed)?;
    tokio::select! {
        () = look(screen, &figures, keys()) => Ok(()),
        () = follow(client, &figures) => Ok(()),
        () = ask_status(client, &figures) => Ok(()),
        () = ask_spent(client, &figures) => Ok(()),
        _ = terminated.recv() => Ok(()),
    }
}

/// What is typed. The thread that reads it ends with the process: nothing else can end a read of a terminal.
fn keys() -> UnboundedReceiver<Event> {
    let (typed, keys) = unbounded_channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if typed.send(event).is_err() {
                return;
            }
        }
    });
    keys
}

/// Draws until a key ends it, or the terminal is gone.
async fn look(mut screen: TerminalScreen, figures: &Mutex<GatewayFigures>, mut keys: UnboundedReceiver<Event>) {
    loop {
        if screen.draw(|frame| view::draw(frame, &mut figures.lock(), Clock.unix_ms())).is_err() {
            return;
        }
        let typed = tokio::select! {
            typed = keys.recv() => typed,
            () = Clock.sleep(DRAWN_EVERY) => continue,
        };
        match typed {
            Some(Event::Key(key)) if figures.lock().press(key) == KeyOutcome::Ends => return,
            Some(_) => {}
            None => return,
        }
    }
}

/// Takes in what the gateway sends, and connects again where that ends.
async fn follow(client: &GatewayClient, figures: &Mutex<GatewayFigures>) {
    loop {
        if let Err(why) = take_in(client, figures).await {
            figures.lock().lost(why);
        }
        Clock.sleep(CONNECT_AGAIN).await;
    }
}

/// Takes in one event stream, to its end.
async fn take_in(client: &GatewayClient, figures: &Mutex<GatewayFigures>) -> Result<(), String> {
    let answer = client.send(Method::GET, LIVE, None).await.map_err(|error| why(&error))?;
    if answer.status() != StatusCode::OK {
        return Err(why(&GatewayClientError::Status(answer.status())));
    }
    figures.lock().connected();
    let (mut body, mut reader) = (answer.into_body(), SseReader::new(EVENT_MOST));
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        reader.push(chunk);
        while let Some(frame) = reader.next_frame().map_err(|error| error.to_string())? {
            let Some(event) = frame.event() else { continue };
            let object = serde_json::from_slice::<Value>(event.payload).map_err(|error| error.to_string())?;
            match object["object"].as_str() {
                Some("second") => figures.lock().add_second(&object),
                Some("event") => figures.lock().add_event(&object),
                _ => {}
            }
        }
    }
    Err("the gateway ended the connection".to_owned())
}

fn why(error: &GatewayClientError) -> String {
    match error {
        GatewayClientError::Unreachable(why) => why.clone(),
        GatewayClientError::Token => "it refuses the token".to_owned(),
        GatewayClientError::Status(status) => format!("it answers {status}"),
    }
}

async fn ask_status(client: &GatewayClient, figures: &Mutex<GatewayFigures>) {
    loop {
        Clock.sleep(STATUS_EVERY).await;
        // One that is missed is said where the stream is.
        if let Ok(status) = status::ask(client).await {
            figures.lock().set_status(&status);
        }
    }
}

async fn ask_spent(client: &GatewayClient, figures: &Mutex<GatewayFigures>) {
    loop {
        // Without a ledger there is none.
        let spent = match client.request(Method::GET, SPENT).await {
            Ok(body) => serde_json::from_slice::<Value>(&body).ok(),
            Err(_) => None,
        };
        figures.lock().set_spent(spent.and_then(|usage| usage["total"]["cost_usd"].as_str()?.parse().ok()));
        Clock.sleep(SPENT_EVERY).await;
    }
}
