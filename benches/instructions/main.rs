//! The gateway whose instructions are counted: production code with every feature on, on a single thread.
//!
//! It must never do anything by itself once it serves, so that every counted instruction is caused by a
//! request. Each byte on stdin ends a lap, and the end of stdin ends the process.
//!
//! Started by `benches/instructions.py`; start reading there.

use anyhow::{Context, anyhow};
use std::hint::black_box;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use tierway::cli::serve::Gateway;
use tierway::clock::Clock;
use tierway::config::{ConfigSource, ProcessEnvironment, load};
use tierway::http::conn::listener::bind;
use tierway::random::Rng;
use tierway::store::Stores;
use tierway::store::memory::MemoryLedger;
use tierway::telemetry::Telemetry;
use tierway::telemetry::access::AccessLog;
use tierway::telemetry::metrics::BuildMetadata;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// As in the release binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let config = std::env::args().nth(1).context("no configuration")?;
    if config == "--bench" {
        println!("instructions: run by `make instructions`");
        return Ok(());
    }
    // With more threads the order would depend on the scheduler.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(Path::new(&config)))
}

async fn serve(config: &Path) -> anyhow::Result<()> {
    let source = ConfigSource::file(config, &ProcessEnvironment).map_err(|problems| anyhow!(problems.render(false)))?;
    let snapshot = load(&source, &ProcessEnvironment, &[]).map_err(|problems| anyhow!(problems.render(false)))?;
    let listener = bind(&snapshot.server.listen)?;
    let telemetry =
        Telemetry::new(AccessLog::to_writer(Box::new(Never)), BuildMetadata { version: "counted", revision: None });
    let ledger = Arc::new(MemoryLedger::default());
    let gateway = Gateway::build(
        Arc::new(snapshot),
        None,
        Arc::new(telemetry),
        Rng::seeded(1),
        Clock,
        Stores { ledger, ..Stores::memory().await },
    )?;
    let port = listener.address()?.reachable().map(|address| address.port()).context("the socket has no port")?;
    println!("{port}");
    io::stdout().flush()?;
    tokio::select! {
        () = gateway.serve(listener, None) => Ok(()),
        ended = laps() => ended,
    }
}

/// The access log's output: its thread blocks in the first write, so that it never contends for a lock with
/// the counted thread. Lines are still formatted and queued.
struct Never;

impl Write for Never {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        loop {
            thread::park();
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn laps() -> anyhow::Result<()> {
    let mut stdin = Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    while stdin.read(&mut [0]).await? > 0 {
        lap();
    }
    Ok(())
}

/// Callgrind writes its counts and resets them whenever this is called.
#[inline(never)]
fn lap() {
    black_box(());
}
