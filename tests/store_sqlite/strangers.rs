//! Requests without a key, in floods: they leave nothing behind, and cost nobody a receipt.

use crate::budgets::{BILL, Provider, config};
use crate::process::{Client, PATIENCE, Running, tierway};
use crate::receipts::Place;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

const FLOODERS: usize = 4;
/// Requests that a flooder sends before it reads the answers.
const PIPELINED: usize = 64;
const PAYING: usize = 4;
const PAID_EACH: u64 = 41;
/// The flood lasts for as long as somebody pays, and for at least so many requests.
const FLOOD: u64 = 20_000;
/// What the access log may say of them in a second.
const LINES_PER_SECOND: u64 = 10;

/// Sends requests without a key, or with a wrong one, until it is told to stop; each is answered with 401.
fn flood(addr: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    let requests = "GET /v1/nothing HTTP/1.1\r\nhost: t\r\n\r\n\
        GET /v1/nothing HTTP/1.1\r\nhost: t\r\nauthorization: Bearer tw_wrong\r\n\r\n";
    let (requests, mut answers) = (requests.repeat(PIPELINED / 2), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(requests.as_bytes()).expect("it reads");
        let mut answered = 0;
        while answered < PIPELINED {
            let mut bytes = [0; 16_384];
            let read = stream.read(&mut bytes).expect("it answers");
            assert_ne!(read, 0, "the connection stays open");
            answers.extend_from_slice(&bytes[..read]);
            let text = String::from_utf8_lossy(&answers);
            answered = text.matches("HTTP/1.1 401 ").count();
            assert_eq!(text.matches("HTTP/1.1 ").count(), answered, "{text}");
        }
        // The body of the last answer may follow: what is left of it has no status.
        answers.clear();
        sent.fetch_add(PIPELINED as u64, Ordering::Relaxed);
    }
}

#[test]
fn a_flood_without_a_key_leaves_nothing_in_the_ledger_and_costs_no_paid_receipt() {
    let (place, provider) = (Place::new(), Provider::start());
    let command = tierway(place.folder(), &["serve"]);
    let config = config(&provider).replace("0.04", "1");
    std::fs::write(place.folder().join("tierway.toml"), config).expect("the folder can be written");
    let gateway = Running::hearing(command, |line| line.contains(r#""reason":"invalid_api_key""#));
    let (addr, began) = (gateway.addr, Instant::now());
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..FLOODERS {
            scope.spawn(|| flood(addr, &stop, &sent));
        }
        let pay = || {
            let mut client = Client::connect(addr).expect("it listens");
            (0..PAID_EACH).for_each(|_| assert_eq!(client.chat("m").expect("it answers").status, 200));
        };
        let paying: Vec<_> = (0..PAYING).map(|_| scope.spawn(pay)).collect();
        let all_paid = paying.into_iter().all(|one| one.join().is_ok());
        while sent.load(Ordering::Relaxed) < FLOOD && all_paid {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(all_paid, "somebody who pays was not served");
    });
    let (paid, sent) = (PAYING as u64 * PAID_EACH, sent.into_inner());
    let counted = format!("reason=\"invalid_api_key\",tier=\"none\"}} {sent}\n");
    let deadline = Instant::now() + PATIENCE;
    let metrics = loop {
        let metrics = gateway.ask("/metrics").1;
        if metrics.contains(&counted) {
            break metrics;
        }
        assert!(Instant::now() < deadline, "not every one of {sent} is counted: {metrics}");
    };
    assert!(metrics.contains("tierway_ledger_receipts_dropped_total 0\n"), "{metrics}");
    let (seconds, log) = (began.elapsed().as_secs() + 2, gateway.stop());
    let lines = log.lines().count() as u64;
    println!("{sent} without a key, {lines} of them in the log; {paid} paid");
    assert!(lines > 0 && lines <= seconds * LINES_PER_SECOND, "{lines} lines in {seconds} s");
    let look = place.look();
    let [rows, keyless, cost] = ["count(*)", "count(*) - count(key)", "sum(cost_nanousd)"].map(|what| {
        let read = look.query_row(&format!("SELECT {what} FROM receipts"), [], |row| row.get::<_, i64>(0));
        read.expect("it is read")
    });
    assert_eq!((rows, keyless), (paid as i64, 0), "each paid request has its receipt, and nobody else has one");
    assert_eq!((cost, provider.billed()), (rows * BILL, rows * BILL));
}
