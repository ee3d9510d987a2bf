//! The gateway whose instructions are counted: the real one with everything on, on a single thread.
//!
//! It must never do anything by itself once it serves: whatever is counted, a request caused.
//!
//! Started by `benches/instructions.py`; start reading there.

use anyhow::{Context, anyhow};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use tierway::cli::serve::Gateway;
use tierway::clock::Clock;
use tierway::config::{Process, Source, load};
use tierway::relay::dice::Dice;
use tierway::telemetry::Telemetry;
use tierway::telemetry::access::AccessLog;
use tierway::telemetry::metrics::Build;
use tokio::net::TcpListener;

/// As in the binary that is shipped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let config = std::env::args().nth(1).context("no configuration")?;
    if config == "--bench" {
        println!("instructions: run by `make instructions`");
        return Ok(());
    }
    // More threads would take turns as the scheduler likes.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(Path::new(&config)))
}

async fn serve(config: &Path) -> anyhow::Result<()> {
    let source = Source::file(config, &Process).map_err(|problems| anyhow!(problems.render(false)))?;
    let snapshot = load(&source, &Process, &[]).map_err(|problems| anyhow!(problems.render(false)))?;
    let listener = TcpListener::bind(snapshot.server.listen).await?;
    let telemetry =
        Telemetry::new(AccessLog::to_writer(Box::new(io::sink())), Build { version: "counted", revision: None });
    let gateway = Gateway::build(Arc::new(snapshot), None, Arc::new(telemetry), Dice::seeded(1), Clock)?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    gateway.serve(listener, None).await;
    Ok(())
}
