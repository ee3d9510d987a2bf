//! Budgets and a process that is killed: the oracle is the provider, which counts the requests it has read.

use crate::process::{Client, Running};
use crate::receipts::Place;
use rusqlite::Connection;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tierway::domain::random::RandomValue;

const CLIENTS: usize = 4;
const KILLS: u64 = 12;
const SEED: u64 = 20_261_123;
/// What the provider bills for every request it has read: 30 tokens in, 2 out.
pub const BILL: i64 = 30 * 1_000 + 2 * 2_000;
const LIMIT: i64 = 40_000_000;

/// A provider that gives every request the same answer, and counts requests once it has read them.
pub struct Provider {
    pub addr: SocketAddr,
    billed: Arc<AtomicI64>,
}

impl Provider {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let addr = listener.local_addr().expect("it is bound");
        let billed = Arc::new(AtomicI64::new(0));
        let counted = billed.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let counted = counted.clone();
                std::thread::spawn(move || serve(stream, &counted));
            }
        });
        Self { addr, billed }
    }

    pub fn billed(&self) -> i64 {
        self.billed.load(Ordering::SeqCst)
    }
}

/// Serves one connection until it ends; `None` says that it did.
fn serve(stream: TcpStream, billed: &AtomicI64) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        billed.fetch_add(BILL, Ordering::SeqCst);
        let answer = concat!(
            r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"#,
            r#""usage":{"prompt_tokens":30,"completion_tokens":2,"total_tokens":32}}"#
        );
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        reader.get_mut().write_all((head + answer).as_bytes()).ok()?;
    }
}

pub fn config(provider: &Provider) -> String {
    crate::process::config(
        &format!("protocol = \"openai\"\nbase_url = \"http://{}/v1\"", provider.addr),
        r#"price = { input = "1", output = "2" }"#,
        r#"budget = { limit = "0.04", window = "none" }"#,
    )
}

/// Clients that send requests until they are stopped or the gateway is gone; returns how many were answered and refused.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(u64, u64)>>,
}

impl Load {
    fn on(addr: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |stop: Arc<AtomicBool>| {
            std::thread::spawn(move || {
                let (mut answered, mut refused) = (0, 0);
                let Ok(mut client) = Client::connect(addr) else { return (0, 0) };
                while !stop.load(Ordering::Relaxed) {
                    match client.chat("m") {
                        Some(answer) if answer.status == 200 => answered += 1,
                        Some(answer) => {
                            assert!(
                                answer.status == 429 && answer.body.contains("insufficient_quota"),
                                "{}",
                                answer.body
                            );
                            refused += 1;
                        }
                        None => break,
                    }
                }
                (answered, refused)
            })
        };
        Self { clients: (0..CLIENTS).map(|_| client(stop.clone())).collect(), stop }
    }

    fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let ends = self.clients.into_iter().map(|client| client.join().expect("every answer is one of the two"));
        ends.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }
}

fn number(look: &Connection, sql: &str) -> i64 {
    look.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).expect("it is read").unwrap_or(0)
}

const SPENT: &str = "SELECT sum(spent_nanousd) FROM budgets";
const LEASED: &str = "SELECT sum(leased_nanousd) FROM budgets";
const UNACCOUNTED: &str = "SELECT sum(amount_nanousd) FROM unaccounted";
const CHARGED: &str = "SELECT sum(cost_nanousd) FROM receipts";

#[test]
fn no_kill_makes_a_budget_overspent() {
    let (place, provider) = (Place::new(), Provider::start());
    let config = config(&provider);
    println!("seed {SEED}");
    let (mut answered, mut refused) = (0, 0);
    let add = |load: Load, answered: &mut u64, refused: &mut u64| {
        let ended = load.end();
        *answered += ended.0;
        *refused += ended.1;
    };
    for round in 0..KILLS {
        let gateway = Running::configured(place.folder(), &config);
        let load = Load::on(gateway.addr);
        std::thread::sleep(Duration::from_millis(20 + RandomValue(SEED).salted(round).below(150)));
        gateway.kill();
        add(load, &mut answered, &mut refused);
        let (look, billed) = (place.look(), provider.billed());
        let taken = number(&look, SPENT) + number(&look, LEASED);
        assert!(billed <= taken && taken <= LIMIT, "kill {round}: {billed} billed, {taken} of {LIMIT} taken");
    }
    // What is left is spent, and the gateway stops gracefully.
    let gateway = Running::configured(place.folder(), &config);
    let load = Load::on(gateway.addr);
    while !gateway.ask("/metrics").1.contains(r#"reason="insufficient_quota""#) {
        std::thread::sleep(Duration::from_millis(5));
    }
    add(load, &mut answered, &mut refused);
    gateway.stop();
    let look = place.look();
    let [spent, leased, unaccounted, charged] = [SPENT, LEASED, UNACCOUNTED, CHARGED].map(|sql| number(&look, sql));
    let billed = provider.billed();
    println!(
        "{KILLS} kills: {answered} answered, {refused} refused; {billed} billed, {charged} on receipts, {unaccounted} \
         unaccounted, {spent} of {LIMIT} spent"
    );
    assert!(billed <= spent && spent <= LIMIT, "0 nano-dollars over the limit");
    assert_eq!(spent, charged + unaccounted, "every charge is on a receipt or on a line that says so");
    assert_eq!(leased, 0, "a stop in good order gives everything back");
    assert!(charged <= billed && answered > 0 && refused > 0);
}

/// Files of the process cannot grow, so that no lease can be written.
#[test]
fn keys_with_a_budget_are_refused_while_the_disk_fails_and_served_again_by_themselves() {
    let (place, provider) = (Place::new(), Provider::start());
    drop(place.open());
    // A budget for more requests than fill the disk.
    let config = config(&provider).replace("0.04", "0.4");
    let gateway = Running::confined_and_configured(place.folder(), 256, &config);
    let mut client = Client::connect(gateway.addr).expect("it listens");
    let mut statuses = Vec::new();
    while statuses.last() != Some(&503) {
        let answer = client.chat("m").expect("it answers");
        assert!(answer.status == 200 || answer.body.contains("ledger_unavailable"), "{}", answer.body);
        statuses.push(answer.status);
    }
    let sent = provider.billed();
    assert_eq!(client.chat("m").expect("it answers").status, 503);
    assert_eq!(provider.billed(), sent, "nothing was sent");
    gateway.grow();
    gateway.until_ready_says(200);
    assert_eq!(client.chat("m").expect("it answers").status, 200);
    gateway.stop();
    let look = place.look();
    assert_eq!(number(&look, LEASED), 0);
    assert_eq!((number(&look, SPENT), number(&look, CHARGED)), (provider.billed(), provider.billed()));
}
