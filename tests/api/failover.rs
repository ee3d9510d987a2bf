//! One region is broken in every way there is, in each dialect: clients see no failure, and once its breaker has tripped
//! the region receives at most one attempt for each open interval.
//!
//! Start reading at [`OutageTest::run`].

use crate::support::gateway::{ALLOW_ALL, provider_table};
use crate::support::journal::ExchangeOutcome;
use crate::support::{
    Ending, Fault, Gate, RETRY_AFTER_SECONDS, ScriptedProvider, TestClients, TestDialect, TestGateway, TestRequest,
    chat_stream, soon,
};
use std::time::{Duration, Instant};

/// Requests for each fault and form, in chat and in the other dialects.
const REQUESTS: usize = 200;
const REQUESTS_OF_OTHERS: usize = 96;
/// Connections that send requests at the same time.
const CONNECTIONS: usize = 16;
/// Requests between two checks of the broken region.
const ROUND: usize = 2 * CONNECTIONS;
/// How long the breaker stays open at first.
const OPEN: Duration = Duration::from_millis(100);
/// Probes to wait for after the trip: three probes have two open intervals between them.
const PROBES: u64 = 3;
/// A breaker stays open for its interval, or up to a fifth less.
const JITTER: f64 = 0.8;
/// Longer than any step here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Settings of `[routing]` that make an outage short.
const ROUTING: &str = r#"
connect_timeout = "300ms"
first_token     = "1s"
whole           = "1s"
breaker = { failures = 5, open = "100ms", open_max = "10s" }
"#;

/// Whole answers or streams, and how the deployment is chosen.
#[derive(Clone, Copy)]
struct OutageTest {
    dialect: TestDialect,
    stream: bool,
    regions: usize,
    balance: &'static str,
}

/// Two regions; the broken one is preferred.
const WHOLE: OutageTest = OutageTest { dialect: TestDialect::Chat, stream: false, regions: 2, balance: "ordered" };
/// Three regions; the one with the lowest latency is preferred.
const STREAMS: OutageTest = OutageTest { dialect: TestDialect::Chat, stream: true, regions: 3, balance: "latency" };

/// Every third fault, so that the tests of one form take about the same time.
fn every_third(of: usize) -> impl Iterator<Item = Fault> {
    Fault::ALL.into_iter().skip(of).step_by(3)
}

#[tokio::test]
async fn no_whole_answer_fails_with_a_broken_region_1_of_3() {
    WHOLE.run(every_third(0)).await;
}

#[tokio::test]
async fn no_whole_answer_fails_with_a_broken_region_2_of_3() {
    WHOLE.run(every_third(1)).await;
}

#[tokio::test]
async fn no_whole_answer_fails_with_a_broken_region_3_of_3() {
    WHOLE.run(every_third(2)).await;
}

#[tokio::test]
async fn no_stream_fails_with_a_broken_region_1_of_3() {
    STREAMS.run(every_third(0)).await;
}

#[tokio::test]
async fn no_stream_fails_with_a_broken_region_2_of_3() {
    STREAMS.run(every_third(1)).await;
}

#[tokio::test]
async fn no_stream_fails_with_a_broken_region_3_of_3() {
    STREAMS.run(every_third(2)).await;
}

#[tokio::test]
async fn no_whole_message_fails_with_a_broken_region() {
    WHOLE.of(TestDialect::Messages).run(Fault::ALL.into_iter()).await;
}

#[tokio::test]
async fn no_stream_of_messages_fails_with_a_broken_region() {
    STREAMS.of(TestDialect::Messages).run(Fault::ALL.into_iter()).await;
}

#[tokio::test]
async fn no_whole_response_fails_with_a_broken_region() {
    WHOLE.of(TestDialect::Responses).run(Fault::ALL.into_iter()).await;
}

#[tokio::test]
async fn no_stream_of_a_response_fails_with_a_broken_region() {
    STREAMS.of(TestDialect::Responses).run(Fault::ALL.into_iter()).await;
}

impl OutageTest {
    fn of(self, dialect: TestDialect) -> Self {
        Self { dialect, ..self }
    }

    /// How many requests each fault meets at least.
    fn requests(self) -> usize {
        if self.dialect == TestDialect::Chat { REQUESTS } else { REQUESTS_OF_OTHERS }
    }

    async fn run(self, faults: impl Iterator<Item = Fault>) {
        for fault in faults {
            self.break_one_region(fault).await;
        }
    }

    async fn break_one_region(self, fault: Fault) {
        let begun = Instant::now();
        let (gateway, providers) = self.start().await;
        let broken = &providers[0];
        let mut clients = TestClients::new(CONNECTIONS, &gateway);
        // Connections are open and every region has answered, as before any outage.
        let mut failures = self.failures(&mut clients, ROUND).await;
        broken.break_with(fault).await;

        let before = gateway.attempts_at("r0/small");
        let mut asked = 0;
        while !is_avoided(&gateway, fault) {
            failures += self.failures(&mut clients, ROUND).await;
            asked += ROUND;
            assert!(begun.elapsed() < PATIENCE, "{fault:?}: the region is never avoided");
        }
        // A client reads its answer a little before that is counted.
        gateway.receipts((ROUND + asked) as u64).await;
        let until_away = gateway.attempts_at("r0/small") - before;
        broken.clear();

        let (away, so_far) = (Instant::now(), gateway.attempts_at("r0/small"));
        let probes = || gateway.attempts_at("r0/small") - so_far;
        while asked < self.requests() || (rest(fault).is_none() && probes() < PROBES) {
            failures += self.failures(&mut clients, ROUND).await;
            asked += ROUND;
            assert!(begun.elapsed() < PATIENCE, "{fault:?}: {} probes of {PROBES}", probes());
        }
        let (elapsed, probes) = (away.elapsed(), probes());
        println!(
            "{:?}, {fault:?}, {}: {failures} failures of {asked}, {until_away} attempts at the broken region until it was avoided, \
             then {probes} in {elapsed:.1?}; {:.1?} in all",
            self.dialect,
            if self.stream { "streams" } else { "whole answers" },
            begun.elapsed()
        );
        assert_eq!(failures, 0, "{fault:?}: clients saw the outage");
        // What is asked last is asked by all at once when its time is over; only a rest admits one at a time.
        let at_once = if fault == Fault::Status429 { CONNECTIONS as u64 } else { 0 };
        assert!(
            probes <= most_probes(fault, elapsed) + at_once,
            "{fault:?}: {probes} attempts in {elapsed:?} at an open breaker"
        );
        if at_once == 0 {
            assert_gaps(fault, broken);
        }
    }

    async fn start(self) -> (TestGateway, Vec<ScriptedProvider>) {
        let mut providers = Vec::new();
        let mut config = String::new();
        for number in 0..self.regions {
            let provider = ScriptedProvider::start(&format!("r{number}")).await;
            let table = provider_table(&format!("r{number}"), &provider, &format!("region-{number}"));
            config += &table.replace("\"openai\"", &format!("\"{}\"", self.dialect.protocol()));
            providers.push(provider);
        }
        let deployments = (0..self.regions).map(|number| format!("{{ provider = \"r{number}\" }}"));
        let deployments = deployments.collect::<Vec<_>>().join(", ");
        config += &format!("[models.small]\n{}deployments = [{deployments}]\n{ALLOW_ALL}", self.dialect.served());
        config += &format!("[routing]\nbalance = \"{}\"\n{ROUTING}", self.balance);
        (TestGateway::start(&config).await, providers)
    }

    /// Sends `requests` requests and counts those without a complete answer.
    async fn failures(self, clients: &mut TestClients, requests: usize) -> usize {
        let (dialect, stream) = (self.dialect, self.stream);
        let request = move |_| TestRequest::new(dialect.path(), dialect.body("small", stream, ""));
        let answers = clients.send_all(requests, request).await;
        let failed = answers.iter().filter(|answer| dialect.text_of(answer).as_deref() != Ok("Hello"));
        failed.inspect(|answer| println!("failed: {answer:?}")).count()
    }
}

/// Whether the broken region is avoided: its breaker tripped, it or its credential rests, or is asked last.
fn is_avoided(gateway: &TestGateway, fault: Fault) -> bool {
    let ended_by =
        |reason| gateway.sum(&format!("tierway_attempts_total{{deployment=\"r0/small\",reason=\"{reason}\"}}")) > 0;
    match fault {
        // At least two requests are under way at once: the second refusal begins the rest.
        Fault::Status401 => ended_by("credential_refused"),
        Fault::Status429 | Fault::Status429RetryAfter | Fault::Status503RetryAfter => ended_by("throttled"),
        _ => gateway.sum(r#"tierway_breaker_transitions_total{deployment="r0/small""#) > 0,
    }
}

/// The shortest time between two attempts at a region that rests or is asked last for this fault; `None` where its
/// breaker trips.
fn rest(fault: Fault) -> Option<Duration> {
    let seconds = match fault {
        Fault::Status429RetryAfter | Fault::Status503RetryAfter => RETRY_AFTER_SECONDS as f64,
        Fault::Status429 => 1.0 * JITTER,
        Fault::Status401 | Fault::Status404 => 30.0 * JITTER,
        _ => return None,
    };
    Some(Duration::from_secs_f64(seconds))
}

/// The shortest time between two attempts at an open breaker, after the `number`th since the trip.
fn interval(fault: Fault, number: u32) -> Duration {
    rest(fault).unwrap_or(OPEN.mul_f64(JITTER) * 2_u32.pow(number))
}

/// The most attempts within `elapsed`, counted from any moment at which the breaker is open.
fn most_probes(fault: Fault, elapsed: Duration) -> u64 {
    let (mut probes, mut until) = (1, interval(fault, 1));
    while until <= elapsed {
        probes += 1;
        until += interval(fault, probes);
    }
    u64::from(probes)
}

/// The journal of the broken region since it was avoided: every attempt comes a backoff after the last.
fn assert_gaps(fault: Fault, broken: &ScriptedProvider) {
    let arrivals: Vec<_> = broken.journal().requests().map(|request| request.arrived).collect();
    for (number, pair) in arrivals.windows(2).enumerate() {
        let (gap, least) = (pair[1] - pair[0], interval(fault, number as u32 + 1));
        assert!(gap >= least, "{fault:?}: attempts {number} and the next {gap:?} apart, at least {least:?} were due");
    }
}

/// Two of three regions are broken and healed at random, in random ways; the third is healthy.
#[tokio::test]
async fn no_request_fails_while_one_region_is_healthy() {
    const SEED: u64 = 7;
    const FLIPS: usize = 30;
    let mut rng = fastrand::Rng::with_seed(SEED);
    let (gateway, providers) = STREAMS.start().await;
    let mut clients = TestClients::new(CONNECTIONS, &gateway);
    let (mut failures, mut asked, begun) = (0, 0, Instant::now());
    for _ in 0..FLIPS {
        let flipped = &providers[rng.usize(..2)];
        match rng.usize(..Fault::ALL.len() + 6) {
            fault if fault < Fault::ALL.len() => flipped.break_with(Fault::ALL[fault]).await,
            _ => flipped.heal().await,
        }
        let test = if rng.bool() { STREAMS } else { WHOLE };
        failures += test.failures(&mut clients, 2 * ROUND).await;
        asked += 2 * ROUND;
    }
    println!(
        "seed {SEED}: {failures} failures of {asked} with two of three regions flapping, in {:.1?}",
        begun.elapsed()
    );
    assert_eq!(failures, 0);
}

#[tokio::test]
async fn dead_connections_in_all_other_regions_still_allow_an_attempt_in_the_last_one() {
    for request in [TestRequest::chat("small"), TestRequest::stream("small")] {
        let (gateway, providers) = OutageTest { balance: "ordered", ..STREAMS }.start().await;
        // Every region but the last has answered, and resets each connection from now on.
        for broken in &providers[..2] {
            assert_eq!(request.clone().send_to(&gateway).await.chat_text().as_deref(), Ok("Hello"));
            broken.break_with(Fault::Reset).await;
        }
        let answer = request.send_to(&gateway).await;
        assert_eq!(answer.chat_text().as_deref(), Ok("Hello"));
        // A dead connection is not counted among the attempts, once.
        assert_eq!((answer.deployment(), answer.attempts()), ("r2/small", 4));
    }
}

#[tokio::test]
async fn a_region_that_resets_every_connection_trips_although_one_dead_connection_is_no_fault() {
    let (gateway, providers) = OutageTest { balance: "ordered", ..STREAMS }.start().await;
    assert_eq!(TestRequest::chat("small").send_to(&gateway).await.deployment(), "r0/small");
    providers[0].break_with(Fault::Reset).await;
    // As many attempts as regions: a second attempt in the same one is not possible.
    let tripped = async {
        while gateway.sum("tierway_breaker_transitions_total{deployment=\"r0/small\"") == 0 {
            assert_eq!(TestRequest::chat("small").send_to(&gateway).await.chat_text().as_deref(), Ok("Hello"));
        }
    };
    soon("the breaker to trip", tripped).await;
}

/// One model in two regions, of which the first is preferred, with these settings of `[routing]`.
async fn two_regions(routing: &str) -> (TestGateway, ScriptedProvider, ScriptedProvider) {
    let (first, second) = (ScriptedProvider::start("first").await, ScriptedProvider::start("second").await);
    let config = format!(
        "{}{}[models.small]\ndeployments = [{{ provider = \"first\" }}, {{ provider = \"second\" }}]\n{ALLOW_ALL}
         [routing]\nbalance = \"ordered\"\n{routing}",
        provider_table("first", &first, "east"),
        provider_table("second", &second, "west"),
    );
    (TestGateway::start(&config).await, first, second)
}

#[tokio::test]
async fn an_error_inside_a_200_is_invisible_to_clients() {
    for request in [TestRequest::chat("small"), TestRequest::stream("small")] {
        let (gateway, first, _second) = two_regions("").await;
        first.break_with(Fault::ErrorInside200).await;
        let answer = request.send_to(&gateway).await;
        assert_eq!(answer.chat_text().as_deref(), Ok("Hello"));
        assert_eq!((answer.deployment(), answer.attempts()), ("second/small", 2));
        assert_eq!(answer.header("x-tierway-region"), Some("west"));
    }
}

#[tokio::test]
async fn a_500_is_retried_in_the_same_region_once_if_configured() {
    let (gateway, first, second) = two_regions("same_region_retry_on_500 = 1").await;
    first.answers_once(Fault::Status500.script().expect("a script"));
    let answer = TestRequest::chat("small").send_to(&gateway).await;
    assert_eq!(answer.chat_text().as_deref(), Ok("Hello"));
    assert_eq!((answer.deployment(), answer.attempts()), ("first/small", 2));
    assert_eq!((first.attempts(), second.attempts()), (2, 0));

    // Only once, and only for a 500: a second failure goes to another region.
    first.break_with(Fault::Status500).await;
    let answer = TestRequest::chat("small").send_to(&gateway).await;
    assert_eq!((answer.deployment(), answer.attempts()), ("second/small", 3));
    first.break_with(Fault::Status503).await;
    let answer = TestRequest::chat("small").send_to(&gateway).await;
    assert_eq!((answer.deployment(), answer.attempts()), ("second/small", 2));
}

#[tokio::test]
async fn a_500_goes_to_another_region_at_once_by_default() {
    let (gateway, first, second) = two_regions("").await;
    first.answers_once(Fault::Status500.script().expect("a script"));
    let answer = TestRequest::chat("small").send_to(&gateway).await;
    assert_eq!((answer.deployment(), answer.attempts()), ("second/small", 2));
    assert_eq!((first.attempts(), second.attempts()), (1, 1));
}

#[tokio::test]
async fn a_connection_closed_while_idle_fails_no_request() {
    let (gateway, first, second) = two_regions("").await;
    assert_eq!(TestRequest::chat("small").send_to(&gateway).await.attempts(), 1);
    first.answers_once(Fault::Reset.script().expect("a script"));
    let answer = TestRequest::chat("small").send_to(&gateway).await;
    assert_eq!(answer.chat_text().as_deref(), Ok("Hello"));
    assert_eq!((answer.deployment(), answer.attempts()), ("first/small", 2), "a stale connection is not a fault");
    assert_eq!(second.attempts(), 0);
}

#[tokio::test]
async fn a_deadline_of_the_client_ends_the_request_in_every_state() {
    let (gateway, first, second) = two_regions("").await;
    for fault in [Fault::SilentBeforeHeaders, Fault::SilentAfterHeaders] {
        first.break_with(fault).await;
        second.break_with(fault).await;
        for request in [TestRequest::chat("small"), TestRequest::stream("small")] {
            let begun = Instant::now();
            let answer = request.header("x-tierway-deadline-ms", "200").send_to(&gateway).await;
            let took = begun.elapsed();
            assert_eq!(answer.refusal(), (504, "upstream_timeout".into()));
            answer.assert_may_retry();
            assert!(took >= Duration::from_millis(200), "it had {took:?} of 200 ms");
            assert!(took < Duration::from_secs(5), "it took {took:?} instead of 200 ms");
        }
    }
    first.heal().await;
    let answer = TestRequest::chat("small").header("x-tierway-deadline-ms", "10000").send_to(&gateway).await;
    assert_eq!(answer.chat_text().as_deref(), Ok("Hello"), "a deadline that is kept changes nothing");
    assert_eq!(answer.deployment(), "first/small", "the client's impatience is not the region's fault");
    for impossible in ["0", "-1", "soon", "1.5", ""] {
        let answer = TestRequest::chat("small").header("x-tierway-deadline-ms", impossible).send_to(&gateway).await;
        assert_eq!(answer.refusal(), (400, "invalid_value".into()), "{impossible:?}");
    }
}

#[tokio::test]
async fn a_deadline_after_the_first_token_ends_the_stream_as_a_timeout() {
    let (gateway, first, second) = two_regions("").await;
    first.answers(chat_stream("Hello", 5).cut_after_frame(3, Ending::Stall));
    let answer = TestRequest::stream("small").header("x-tierway-deadline-ms", "300").send_to(&gateway).await;
    assert_eq!(answer.status, 200);
    let frames = answer.frames();
    let last = frames.last().expect("a stream of some frames");
    assert_eq!(last.json()["error"]["code"], "upstream_timeout");
    assert!(answer.chat_text().is_err(), "a truncated answer is never presented as complete");
    assert_eq!(second.attempts(), 0, "no attempt follows the commit point");
}

#[tokio::test]
async fn a_silent_region_is_avoided_and_its_requests_are_made_elsewhere_as_well() {
    let (gateway, first, second) = two_regions("silent_after = \"500ms\"\nfirst_token = \"2s\"").await;
    let gate = Gate::new();
    first.answers(chat_stream("Hello", 1).wait_before_headers(&gate));
    // A quarter of `first_token` without a sign of life is silence, while nothing is known of the region.
    let rescued = TestRequest::stream("small").send_to(&gateway).await;
    assert_eq!(rescued.chat_text().as_deref(), Ok("Hello"));
    assert_eq!((rescued.deployment(), rescued.attempts()), ("second/small", 2));
    assert_eq!(first.at_rest().await.only().outcome(), Some(ExchangeOutcome::ClientClosed), "the loser is cancelled");
    assert_eq!(gateway.sum("tierway_breaker_transitions_total"), 0, "no breaker has moved");
    // The next one asks the silent region, bounded, and is rescued like the first; then others avoid it.
    let asked = TestRequest::stream("small").send_to(&gateway).await;
    assert_eq!((asked.chat_text().as_deref(), asked.deployment()), (Ok("Hello"), "second/small"));
    let avoiding = TestRequest::stream("small").send_to(&gateway).await;
    assert_eq!((avoiding.deployment(), avoiding.attempts()), ("second/small", 1));
    assert_eq!(second.attempts(), 3);
    gate.open();
    let back = async { while TestRequest::stream("small").send_to(&gateway).await.deployment() != "first/small" {} };
    soon("the region to be used again", back).await;
}
