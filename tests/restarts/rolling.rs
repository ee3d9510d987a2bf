//! Three gateways on one PostgreSQL database behind HAProxy, with the configuration of `deploy/haproxy`, which are restarted
//! one after the other.

use crate::client::{Client, Kind};
use crate::gateway::{Gateway, PATIENCE, Place};
use crate::load::{Load, LoadPlan, Summary};
use crate::number;
use crate::postgres_server::TestDatabase;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often one after the other is restarted, and how fast clients send, in `make test`.
const ROUNDS: u64 = 1;
const PAUSE: Duration = Duration::from_millis(20);
/// HAProxy notices within 1.2 s that a gateway is not ready.
const LB_GRACE: &str = "2s";

/// HAProxy in front of gateways; ended when it is dropped.
struct HaProxy {
    process: Child,
    addr: SocketAddr,
}

impl HaProxy {
    /// Started with the project's configuration. Its address is bound here, so that nobody else can take it.
    fn start(gateways: [SocketAddr; 3], place: &Place) -> Self {
        let [clients, metrics] = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"));
        let addr = clients.local_addr().expect("it is bound");
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/haproxy/haproxy.cfg");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"exec 3<&0 4>&1 1>&2 0</dev/null; exec haproxy -db -f "$0""#]).arg(config);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin");
        command.envs([("TIERWAY_BIND", "fd@3"), ("TIERWAY_HAPROXY_METRICS", "fd@4")]);
        for (number, gateway) in gateways.iter().enumerate() {
            command.env(format!("TIERWAY_GATEWAY_{}", number + 1), gateway.to_string());
        }
        let log = File::options().create(true).append(true).open(place.path("haproxy.log")).expect("a log");
        command.stdin(OwnedFd::from(clients)).stdout(OwnedFd::from(metrics)).stderr(Stdio::from(log));
        let process = command.spawn().expect("there is a shell");
        // From here on HAProxy alone keeps the sockets open.
        drop(command);
        let mut haproxy = Self { process, addr };
        haproxy.until_it_serves(place);
        haproxy
    }

    fn until_it_serves(&mut self, place: &Place) {
        let started = Instant::now();
        while Client::new(self.addr, false).request(Kind::Whole).is_err() {
            let ended = self.process.try_wait().expect("it was started here");
            let waited = ended.is_none() && started.elapsed() < PATIENCE;
            assert!(waited, "HAProxy does not serve; is it installed? `apt-get install haproxy`\n{}", log(place));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn log(place: &Place) -> String {
    std::fs::read_to_string(place.path("haproxy.log")).unwrap_or_default()
}

/// An address of loopback for each gateway, which no connection of a client begins at: those are at 127.0.0.1. It stays
/// free while the gateway is away.
fn addresses() -> [SocketAddr; 3] {
    [21, 22, 23].map(|last| {
        let socket = TcpListener::bind(SocketAddr::from(([127, 0, 0, last], 0))).expect("loopback has a free port");
        socket.local_addr().expect("it is bound")
    })
}

/// Every request has its receipt in `database`, what is spent is what they cost, and nothing is leased.
fn check_books(database: &TestDatabase, requests: u64) {
    let sums = "SELECT count(*), count(*) FILTER (WHERE outcome <> 'served'), sum(cost_nanousd) > 0,
        sum(cost_nanousd) = (SELECT sum(spent_nanousd) FROM tierway.budgets),
        (SELECT sum(leased_nanousd) FROM tierway.budgets), (SELECT count(*) FROM tierway.unaccounted)
        FROM tierway.receipts";
    assert_eq!(database.query(sums), format!("{requests}|0|t|t|0|0"));
}

#[test]
fn a_rolling_restart_behind_haproxy_refuses_nothing() {
    let (database, (place, sockets), addresses) = (TestDatabase::new(), Place::new(), addresses());
    drop(sockets);
    place.without_operators_address();
    let url = database.url();
    let start = |addr: SocketAddr| {
        let listen = addr.to_string();
        let variables = [("LISTEN", &listen[..]), ("LB_GRACE", LB_GRACE)];
        let variables = variables.map(|(name, value)| (format!("TIERWAY__SERVER__{name}"), value));
        let [listen, grace] = variables.each_ref().map(|(name, value)| (name.as_str(), *value));
        place.start_with(&[listen, grace, ("TIERWAY__STORE__URL", &url)])
    };
    let mut gateways = addresses.map(|addr| Some(start(addr)));
    let haproxy = HaProxy::start(addresses, &place);
    let (requests, rounds) = (number("TIERWAY_RESTART_REQUESTS", 0), number("TIERWAY_RESTARTS", ROUNDS));
    let pause = if requests == 0 { PAUSE } else { Duration::ZERO };
    let (clients, long) = (haproxy.addr, Kind::LongStream);
    let started = Instant::now();
    let load = Load::start(LoadPlan { clients, probed: None, long, requests, held: true, pause });
    load.until_answered(50);
    for _ in 0..rounds {
        for (gateway, addr) in gateways.iter_mut().zip(addresses) {
            load.across(|| {
                gateway.take().expect("it was started").terminate();
                *gateway = Some(start(addr));
            });
        }
    }
    load.release();
    let Summary { answered, streams_across, failed, longest, .. } = load.end();
    gateways.into_iter().flatten().for_each(Gateway::terminate);
    eprintln!(
        "rolling: {} of {answered} requests failed over {rounds} restarts of each of three gateways; {streams_across} streams \
         were open during one; the longest wait for a first byte was {longest:?}; {:?} in all",
        failed.len(),
        started.elapsed()
    );
    assert!(failed.is_empty(), "{:#?}\n{}\n{}", &failed[..failed.len().min(9)], place.log(), log(&place));
    assert!(streams_across >= 3 * rounds, "a long stream was open at each restart, not {streams_across}");
    // One more showed that HAProxy serves.
    check_books(&database, answered + 1);
}
