//! `tierway healthcheck`: asks a running gateway whether it lives.
//!
//! It is what a container without a shell or curl can run against itself, so it speaks just enough
//! HTTP over a plain socket and reads nothing but the status.

use clap::Args;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// What `healthcheck` takes.
#[derive(Args, Debug)]
pub(super) struct Healthcheck {
    /// Where the gateway listens
    #[arg(long, value_name = "ADDRESS", env = "TIERWAY__SERVER__LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// What to ask
    #[arg(long, value_name = "PATH", default_value = "/healthz")]
    path: String,
}

/// Longer than this is as good as dead.
const PATIENCE: Duration = Duration::from_secs(3);

/// Exits with 0 when the gateway answers with a 2xx, else with 1.
pub(super) fn healthcheck(args: &Healthcheck) -> anyhow::Result<ExitCode> {
    let mut address = args.listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let status = ask(address, &args.path).map_err(|error| anyhow::anyhow!("{address}: {error}"))?;
    let healthy = status.split(' ').nth(1).is_some_and(|code| code.len() == 3 && code.starts_with('2'));
    println!("{address}{}: {}", args.path, status.trim());
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The status line of the answer.
fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status)?;
    Ok(status)
}
