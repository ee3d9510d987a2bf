//! `[server]`, `[store]` and `[telemetry]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::super::raw::{Server, Store, Telemetry, Tls};
use super::super::reader::{Located, Table};
use super::super::settings::StoreLocation;
use super::super::value::{BaseUrl, ByteSize, LogFilter, StoreUrl};
use crate::domain::secret::Secret;

/// Loopback: nobody else reaches a gateway that was not told whom to trust.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Where the admin token is looked for when the file says nothing.
const ADMIN_TOKEN_VARIABLE: &str = "TIERWAY_ADMIN_TOKEN";
/// Room for a long conversation with a few images.
const MAX_BODY: ByteSize = ByteSize(32 << 20);
/// Thirty-two of the largest bodies; a small machine survives it.
const MAX_IN_FLIGHT: ByteSize = ByteSize(1 << 30);
/// Most load balancers need no grace, and tests should not wait.
const LB_GRACE: Duration = Duration::ZERO;
/// The grace period of Kubernetes.
const DRAIN: Duration = Duration::from_secs(30);
/// In the working directory, where somebody who tries it finds it.
const STORE_URL: &str = "sqlite:tierway.db";
/// One line per request and every change of state, no more.
const LOG: &str = "info";

pub(super) fn server(table: &mut Table<'_>) -> Server {
    Server {
        listen: table.or("listen", LISTEN),
        admin_listen: table.optional("admin_listen"),
        admin_token: admin_token(table),
        viewer_token: table.optional("viewer_token"),
        max_body: table.or("max_body", MAX_BODY),
        max_in_flight_bytes: table.or("max_in_flight_bytes", MAX_IN_FLIGHT),
        lb_grace: table.or("lb_grace", LB_GRACE),
        drain: table.or("drain", DRAIN),
        tls: table.optional_table("tls", tls),
    }
}

/// An absent token is looked for in the environment; a written one must be found.
fn admin_token(table: &mut Table<'_>) -> Option<Located<Secret>> {
    let written = table.optional("admin_token");
    if written.is_some() || table.has("admin_token") {
        return written;
    }
    let text = table.diagnostics().variable(ADMIN_TOKEN_VARIABLE)?;
    Some(table.taken_from("admin_token", ADMIN_TOKEN_VARIABLE, Secret::new(text)))
}

fn tls(table: &mut Table<'_>) -> Tls {
    Tls { cert: table.required("cert"), key: table.required("key") }
}

pub(super) fn store(table: &mut Table<'_>) -> Store {
    let url = table.or("url", StoreUrl(STORE_URL.to_owned()));
    if matches!(StoreLocation::of_url(&url.value.0), Some(StoreLocation::Server(_))) {
        table.unenforced("url", "receipts and what budgets have spent would be kept in memory only");
    }
    Store {
        url,
        retention: table.optional("retention"),
        shared: table.optional_unbuilt("shared", "each replica would keep limits of its own"),
    }
}

pub(super) fn telemetry(table: &mut Table<'_>) -> Telemetry {
    let telemetry =
        Telemetry { log: table.or("log", LogFilter(LOG.to_owned())), metrics_token: table.optional("metrics_token") };
    table.optional_unbuilt::<BaseUrl>("otlp", "no traces would be sent");
    telemetry
}
