//! The tools of the benchmarks: a provider that answers at once, a minimal proxy as a reference, and load
//! generators for what `wrk` cannot do.
//!
//! It must never be the bottleneck: provider and load implement HTTP directly, and share a core while the
//! gateway has its own. Nothing here is a test.
//!
//! Started by `benches/*.py`; start reading in `compare.py`.

// A load generator needs real clocks and sleeping threads.
#![allow(clippy::disallowed_methods)]

mod load;
mod mock;
mod open;
mod pass;
mod slow;
mod timeline;
mod wire;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use std::net::SocketAddr;

#[derive(Parser)]
#[command(name = "rig")]
struct Cli {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Answer every request at once, as a provider
    Mock {
        listen: SocketAddr,
        /// The fault between SIGUSR1 and SIGUSR2
        #[arg(long, default_value = "error")]
        fault: mock::Fault,
        /// Connections the system may hold before they are accepted
        #[arg(long, default_value_t = 4096)]
        backlog: u32,
    },
    /// Check a key, parse `model`, forward: axum and reqwest
    Pass { listen: SocketAddr, provider: String, key: String },
    /// Whole answers at a fixed rate, timed from when each was due
    Open {
        #[command(flatten)]
        at: Target,
        #[arg(long)]
        per_second: u32,
        #[arg(long)]
        seconds: f64,
        /// Each on a connection of its own
        #[arg(long)]
        fresh: bool,
        /// Streams of one token, timed to it
        #[arg(long)]
        stream: bool,
    },
    /// Streams side by side, again and again, to their ends
    Streams {
        #[command(flatten)]
        at: Target,
        #[command(flatten)]
        shape: load::Shape,
    },
    /// Streams that have had one frame and wait, until stdin ends
    Hold {
        #[command(flatten)]
        at: Target,
        #[arg(long)]
        streams: usize,
    },
    /// Streams at a fixed rate, a line for each
    Timeline {
        #[command(flatten)]
        at: Target,
        #[command(flatten)]
        plan: timeline::Plan,
    },
    /// Connections that are slow on purpose, until stdin ends
    Slow {
        #[command(flatten)]
        at: Target,
        #[arg(long)]
        manner: slow::Manner,
        #[arg(long)]
        connections: u32,
    },
}

/// The address to send requests to, and the key to use.
#[derive(clap::Args, Clone)]
struct Target {
    address: SocketAddr,
    #[arg(long)]
    key: String,
}

impl Target {
    /// A whole request, head and body. `more` is put before the messages.
    fn request(&self, more: &str) -> Vec<u8> {
        let body = format!(
            r#"{{"model":"bench-model",{more}"messages":[{{"role":"user","content":"Say something short."}}]}}"#
        );
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.address,
            self.key,
            body.len()
        );
        (head + &body).into_bytes()
    }
}

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--bench") {
        println!("rig: run by `make bench`");
        return Ok(());
    }
    let output = match Cli::parse().part {
        Part::Mock { listen, fault, backlog } => return on_one_thread(mock::serve(listen, fault, backlog)),
        Part::Pass { listen, provider, key } => return pass::serve(listen, provider, key),
        Part::Open { at, per_second, seconds, fresh, stream } => {
            open::run(&at, &open::Plan { per_second, seconds, fresh, stream })?
        }
        Part::Streams { at, shape } => on_one_thread(load::streams(at, shape))?,
        Part::Hold { at, streams } => on_one_thread(load::hold(at, streams))?,
        Part::Timeline { at, plan } => on_one_thread(timeline::timeline(at, plan))?,
        Part::Slow { at, manner, connections } => on_one_thread(slow::slow(at, manner, connections))?,
    };
    println!("{output}");
    Ok(())
}

fn on_one_thread<T>(part: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?.block_on(part)
}

/// The `share` (0 … 1) quantile of `sorted`.
fn quantile(sorted: &[u64], share: f64) -> anyhow::Result<u64> {
    if sorted.is_empty() {
        bail!("nothing was measured");
    }
    Ok(sorted[((sorted.len() - 1) as f64 * share).round() as usize])
}
