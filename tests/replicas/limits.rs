//! What the limits of a key are when several gateways share its store.

use crate::place::{Place, asked};
use crate::postgres_server::TestDatabase;
use crate::process::{PATIENCE, Running};
use crate::together;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The whole answer to a request with `secret`, its head first.
pub fn answer(gateway: &Running, secret: &str) -> String {
    let body = r#"{"model":"m","max_tokens":2,"messages":[{"role":"user","content":"Hi"}]}"#;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nconnection: close\r\nauthorization: Bearer {secret}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(gateway.addr).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is open");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers in text");
    answer
}

/// What a gateway says is the limit of requests a minute of the key with `secret`.
pub fn limit(gateway: &Running, secret: &str) -> u64 {
    let answer = answer(gateway, secret);
    let value = answer.lines().find_map(|line| line.strip_prefix("x-ratelimit-limit-requests: "));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no limit: {answer}"))
}

/// Requests that `gateway` grants until it refuses one.
pub fn granted(gateway: &Running, secret: &str) -> usize {
    (0..1_000).take_while(|_| asked(gateway, secret) == 200).count()
}

#[test]
fn gateways_divide_the_limits_of_a_key_among_them() {
    let (database, place) = (TestDatabase::new(), Place::new());
    let config = together::config(&database).replace("requests_per_minute = 100000", "requests_per_minute = 11");
    place.write("tierway.toml", &config);
    let [probe, counted] = ["probe", "counted"].map(|name| place.created(name));
    let first = Running::configured(place.folder(), &config);
    assert_eq!(limit(&first, &probe), 11, "it is alone");
    let second = Running::configured(place.folder(), &config);
    assert_eq!(limit(&second, &probe), 5, "it knows of the first when it serves");
    let started = Instant::now();
    while limit(&first, &probe) != 6 {
        assert!(started.elapsed() < PATIENCE, "the first one never sees the second");
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("the first one has its part {:?} after the second serves", started.elapsed());
    assert_eq!([&first, &second].map(|gateway| granted(gateway, &counted)), [6, 5]);
}
