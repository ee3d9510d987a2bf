//! Whom a failure is blamed on: one key sends requests that fail, each as soon as it can, and all other keys go on as
//! if nothing happened.
//!
//! The providers are well; what fails is the request: they answer each one that contains [`MARK`] with the failure
//! of the row, and every other one with "Hello". A row is a failure, a number of deployments and the [`Keys`]. It
//! states what the others got, what the failing key read, and how long it took until its own next request without the
//! mark was served. All rows are printed; a row that breaks a promise fails the test by its name.
//!
//! Start reading in [`Row::run`].

use crate::support::client::Response;
use crate::support::gateway::{KEY, OTHER_KEY, provider_table};
use crate::support::{Fault, Gate, Script, ScriptedProvider, TestClients, TestGateway, TestRequest, chat};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What a request contains that is to fail.
const MARK: &str = "flagged";
/// The member that contains it.
const MARKED: &str = r#""user":"flagged""#;
/// What the providers say about it.
const WORDS: &str = "These are the words of the provider";
/// The code of an error that says when to come back.
const COME_BACK: &str = "no_deployment_available";
/// The stated time of the failures that state one: longer than any row takes.
const STATED: Duration = Duration::from_secs(30);
/// How long a client with the usual libraries goes on to retry.
const PATIENCE: Duration = Duration::from_secs(5);
/// When it retries where nothing advises it.
const UNADVISED: Duration = Duration::from_millis(500);
/// Requests of the other key in one row; `TIERWAY_BLAME_REQUESTS` sets another number.
const REQUESTS: usize = 8;
/// One request of the other key per this time.
const EVERY: Duration = Duration::from_millis(60);
/// In the middle the other key sends nothing for this long: what its successes held off may happen now.
const QUIET: Duration = Duration::from_millis(1_200);
/// One marked request per this time, where the number of requests is not set.
const MARKED_EVERY: Duration = Duration::from_millis(20);
/// Rows that run at the same time.
const AT_ONCE: usize = 18;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_pays_for_the_requests_of_another_key_at_a_lone_deployment() {
    table(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_pays_for_the_requests_of_another_key_at_two_deployments() {
    table(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_pays_for_the_requests_of_another_key_at_three_deployments() {
    table(3).await;
}

#[tokio::test]
async fn what_every_provider_refuses_alike_lets_nothing_rest() {
    for status in [402, 403, 404] {
        let provoked = Provoked::of("alike", refusal(status), Reads::AsItCame(status));
        let (gateway, providers) = Row { provoked, deployments: 2, keys: Keys::One }.start().await;
        for number in 1..=5 {
            let answer = request(number).with_member(MARKED).send_to(&gateway).await;
            assert_eq!((answer.status, answer.attempts()), (status, 2));
            assert!(answer.text().contains(WORDS));
        }
        assert_eq!(providers.iter().map(ScriptedProvider::attempts).collect::<Vec<_>>(), [5, 5], "{status}");
        assert_eq!(gateway.sum("tierway_breaker_transitions_total"), 0, "{status}");
    }
}

#[tokio::test]
async fn an_outage_that_one_team_saw_alone_keeps_no_request_of_others_waiting_for_a_probe() {
    let provoked = Provoked::of("500", refusal(500), Reads::Failed);
    let (gateway, providers) = Row { provoked: provoked.clone(), deployments: 1, keys: Keys::Two }.start().await;
    while gateway.transitions("r0/small", r#"reason="consecutive",to="open""#) == 0.0 {
        request(0).with_member(MARKED).send_to(&gateway).await;
    }
    // The others' first answers take long, and all are asked for at the same time: more than one trial each 100 ms
    // could bring about while a request waits.
    let (others, gate) = (60, Gate::new());
    let (failure, slow) = (provoked.script, chat(Default::default()).wait_before_headers(&gate));
    providers[0].answers(Script::by(move |request| {
        let marked = memchr::memmem::find(&request.body, MARK.as_bytes()).is_some();
        if marked { failure.clone() } else { slow.clone() }
    }));
    let mut asking = JoinSet::new();
    for _ in 0..others {
        let mut client = gateway.connect().await;
        asking.spawn(async move {
            TestRequest::chat("small").with_key(OTHER_KEY).send(&mut client).await;
            client.response().await.chat_text()
        });
    }
    gate.reached(others).await;
    gate.open();
    assert!(asking.join_all().await.into_iter().all(|answer| answer.as_deref() == Ok("Hello")));
}

/// All rows with this number of deployments.
async fn table(deployments: usize) {
    let (begun, mut running) = (Instant::now(), JoinSet::new());
    let free = Arc::new(Semaphore::new(AT_ONCE));
    for provoked in Provoked::all() {
        for keys in Keys::ALL {
            let (row, free) = (Row { provoked: provoked.clone(), deployments, keys }, free.clone());
            running.spawn(async move {
                let _free = free.acquire_owned().await.expect("it is never closed");
                let outcome = row.run().await;
                (row, outcome)
            });
        }
    }
    let mut rows = Vec::new();
    while let Some(row) = running.join_next().await {
        rows.push(row.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())));
    }
    rows.sort_by_key(|(row, _)| (row.provoked.name, row.keys));
    rows.iter().for_each(|(row, outcome)| println!("{}: {outcome}", row.name()));
    println!("{} rows with {deployments} deployments in {:.1?}", rows.len(), begun.elapsed());
    let broken = rows.iter().flat_map(|(row, outcome)| {
        outcome.broken_promises(row).into_iter().map(move |promise| format!("{}: {promise}; {outcome}", row.name()))
    });
    let broken: Vec<String> = broken.collect();
    assert!(broken.is_empty(), "{} promises are broken:\n{}", broken.len(), broken.join("\n"));
}

/// Who sends requests beside the failing key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Keys {
    /// Nobody.
    One,
    /// A key without a team; the failing one has a team.
    Two,
    /// A key of the same team.
    OneTeam,
}

impl Keys {
    const ALL: [Self; 3] = [Self::One, Self::Two, Self::OneTeam];

    fn label(self) -> &'static str {
        match self {
            Self::One => "one key",
            Self::Two => "two keys",
            Self::OneTeam => "one team",
        }
    }

    fn config(self) -> String {
        let team = if self == Self::OneTeam { "team = \"a\"\n" } else { "" };
        format!(
            "[policies.everything]\nmodels = [\"*\"]\n[teams.a]\n\
             [[keys]]\nname = \"failing\"\npolicy = \"everything\"\nsecret = \"env:TEST_KEY\"\nteam = \"a\"\n\
             [[keys]]\nname = \"other\"\npolicy = \"everything\"\nsecret = \"env:OTHER_KEY\"\n{team}"
        )
    }
}

/// What the failing key reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reads {
    /// The provider's answer as it came, with this status.
    AsItCame(u16),
    /// That its requests failed, with the provider's words.
    Failed,
    /// That its requests failed; the provider had no words for it.
    FailedWithoutWords,
    /// When to come back.
    ComeBack,
}

impl Reads {
    /// Whether this is what was read.
    fn is(self, status: u16, code: &str, words: bool) -> bool {
        match self {
            Self::AsItCame(expected) => status == expected && words,
            Self::Failed => (status, code, words) == (502, "upstream_error", true),
            Self::FailedWithoutWords => status == 502 && !words,
            Self::ComeBack => (status, code, words) == (503, COME_BACK, false),
        }
    }
}

/// A failure that a marked request meets.
#[derive(Clone)]
struct Provoked {
    name: &'static str,
    script: Script,
    reads: Reads,
    /// Its provider stated a time, until which nobody of the team is served there.
    stated: bool,
}

impl Provoked {
    /// Every failure of the table.
    fn all() -> Vec<Self> {
        let as_it_came = |name, status| Self::of(name, refusal(status), Reads::AsItCame(status));
        let failed = |name, status| Self::of(name, refusal(status), Reads::Failed);
        let wordless = |name, script| Self::of(name, script, Reads::FailedWithoutWords);
        let of_fault = |name, fault: Fault| wordless(name, fault.script().expect("a fault of the answer"));
        let stated = |name, status| {
            let script = refusal(status).header("retry-after", &STATED.as_secs().to_string());
            Self { stated: true, ..Self::of(name, script, Reads::ComeBack) }
        };
        let filtered = json!({"error": {"message": WORDS, "type": "invalid_request_error", "code": "content_filter"}});
        let empty = |object: &str, content: &str| json!({"id": "x", "object": object, "created": 1, "model": "small", "choices": [], "note": content});
        let (whole, frame) = (empty("chat.completion", WORDS), empty("chat.completion.chunk", WORDS));
        let no_choices = Script::by(move |request| match request.streams() {
            true => Script::sse().frame(&frame.to_string()).done(),
            false => Script::status(200).json(&whole),
        });
        vec![
            as_it_came("400", 400),
            failed("401", 401),
            as_it_came("402", 402),
            as_it_came("403", 403),
            Self::of("403 of a content filter", Script::status(403).json(&filtered), Reads::AsItCame(403)),
            as_it_came("404", 404),
            failed("408", 408),
            as_it_came("413", 413),
            as_it_came("422", 422),
            Self::of("429", refusal(429), Reads::ComeBack),
            stated("429 with a stated time", 429),
            as_it_came("451", 451),
            failed("500", 500),
            failed("502", 502),
            failed("503", 503),
            stated("503 with a stated time", 503),
            failed("504", 504),
            failed("529", 529),
            of_fault("a body that is no JSON", Fault::GarbageBody),
            of_fault("an answer that ends early", Fault::FinBeforeFirstToken),
            of_fault("an error inside a 200", Fault::ErrorInside200),
            wordless("a 200 without a choice", no_choices),
        ]
    }

    fn of(name: &'static str, script: Script, reads: Reads) -> Self {
        Self { name, script, reads, stated: false }
    }
}

/// A refusal in OpenAI's form with [`WORDS`] as its message.
fn refusal(status: u16) -> Script {
    Script::status(status).json(&json!({"error": {"message": WORDS, "type": "x", "param": null, "code": null}}))
}

/// One row of the table.
struct Row {
    provoked: Provoked,
    deployments: usize,
    keys: Keys,
}

/// What a row brought.
#[derive(Default, Debug)]
struct Outcome {
    /// Requests of the other key.
    asked: usize,
    /// Those that were not served, and what they got instead.
    unserved: Vec<String>,
    /// The longest time that one of them took.
    slowest: Duration,
    /// What the failing key read, and how often; with an asterisk where the provider's words were in it.
    read: BTreeMap<String, usize>,
    /// What else it read than it should.
    misread: Vec<String>,
    /// From the last marked request's answer to the first good one of the same key, and what it read before.
    recovery: Option<Duration>,
    before_recovery: Vec<String>,
    /// When it was told to come back, last.
    advised: Option<Duration>,
}

impl Row {
    fn name(&self) -> String {
        format!("{} × {} × {} deployments", self.provoked.name, self.keys.label(), self.deployments)
    }

    async fn run(&self) -> Outcome {
        let (gateway, _providers) = self.start().await;
        let (requests, marked_every) = match std::env::var("TIERWAY_BLAME_REQUESTS") {
            Ok(number) => (number.parse().expect("TIERWAY_BLAME_REQUESTS is a number"), Duration::ZERO),
            Err(_) => (REQUESTS, MARKED_EVERY),
        };
        let over = Arc::new(AtomicBool::new(false));
        let failing = tokio::spawn(fail_until(over.clone(), TestClients::new(2, &gateway), marked_every));
        let mut outcome = Outcome::default();
        let mut others = TestClients::new(4, &gateway);
        for (quiet, half) in [(Duration::ZERO, requests / 2), (QUIET, requests - requests / 2)] {
            tokio::time::sleep(quiet).await;
            if self.keys == Keys::One {
                tokio::time::sleep(EVERY * half as u32).await;
            } else {
                outcome.add_others(&mut others, half).await;
            }
        }
        over.store(true, Ordering::Relaxed);
        for answer in failing.await.expect("the failing key reads every answer") {
            outcome.read(&answer, self.provoked.reads);
        }
        outcome.recover(&gateway).await;
        outcome
    }

    async fn start(&self) -> (TestGateway, Vec<ScriptedProvider>) {
        let (mut providers, mut config) = (Vec::new(), String::new());
        for number in 0..self.deployments {
            let provider = ScriptedProvider::start(&format!("r{number}")).await;
            let (failure, well) = (self.provoked.script.clone(), chat(Default::default()));
            provider.answers(Script::by(move |request| {
                let marked = memchr::memmem::find(&request.body, MARK.as_bytes()).is_some();
                if marked { failure.clone() } else { well.clone() }
            }));
            config += &provider_table(&format!("r{number}"), &provider, &format!("region-{number}"));
            providers.push(provider);
        }
        let deployments: Vec<_> = (0..self.deployments).map(|n| format!("{{ provider = \"r{n}\" }}")).collect();
        config += &format!("[models.small]\ndeployments = [{}]\n{}", deployments.join(", "), self.keys.config());
        (TestGateway::start(&config).await, providers)
    }
}

/// Every second one is streamed.
fn request(number: usize) -> TestRequest {
    if number.is_multiple_of(2) { TestRequest::chat("small") } else { TestRequest::stream("small") }
}

/// Sends marked requests until `over`; returns every answer.
async fn fail_until(over: Arc<AtomicBool>, mut clients: TestClients, every: Duration) -> Vec<Response> {
    let mut answers = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let make = |number| request(number).with_key(KEY).with_member(MARKED);
        answers.extend(clients.send_paced(4, every, make, |_, answer| answer).await);
    }
    answers
}

impl Outcome {
    /// The other key sends its requests.
    async fn add_others(&mut self, others: &mut TestClients, requests: usize) {
        let begun = Instant::now();
        let make = |number| request(number).with_key(OTHER_KEY);
        let read = move |number: usize, answer: Response| {
            let took = begun.elapsed().saturating_sub(EVERY * number as u32);
            (took, answer.chat_text().err().map(|why| format!("request {number}: {why}")))
        };
        for (took, unserved) in others.send_paced(requests, EVERY, make, read).await {
            self.asked += 1;
            self.slowest = self.slowest.max(took);
            self.unserved.extend(unserved);
        }
    }

    /// The failing key reads this where it should read `expected`.
    fn read(&mut self, answer: &Response, expected: Reads) {
        let words = answer.text().contains(WORDS);
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let code = body["error"]["code"].as_str().unwrap_or("-");
        let read = format!("{} {code}{}", answer.status, if words { "*" } else { "" });
        *self.read.entry(read).or_default() += 1;
        // With its team's extra attempts used up a request is tried once, and its one failure may be the provider's.
        let tried_once = answer.attempts() == 1 && (answer.status, code) == (502, "upstream_error");
        if !expected.is(answer.status, code, words) && !tried_once {
            self.misread.push(answer.text().to_owned());
        }
    }

    /// The failing key sends requests without the mark until one is served, or its patience ends.
    async fn recover(&mut self, gateway: &TestGateway) {
        let begun = Instant::now();
        for number in 0.. {
            let answer = request(number).with_key(KEY).send_to(gateway).await;
            if answer.chat_text().is_ok() {
                self.recovery = Some(begun.elapsed());
                return;
            }
            self.before_recovery.push(format!("{} ms: {}", begun.elapsed().as_millis(), answer.text()));
            let advised = answer.header("retry-after-ms").and_then(|ms| ms.parse().ok());
            self.advised = advised.map(Duration::from_millis);
            let pause = self.advised.unwrap_or(UNADVISED);
            if begun.elapsed() + pause > PATIENCE {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn broken_promises(&self, row: &Row) -> Vec<String> {
        let mut broken = Vec::new();
        // What a provider's own time is stated to is its credential, which the whole team presents.
        let rests = |why: &&String| row.provoked.stated && row.keys == Keys::OneTeam && why.contains(COME_BACK);
        if let Some(first) = self.unserved.iter().find(|why| !rests(why)) {
            broken.push(format!("{} of {} others were not served: {first}", self.unserved.len(), self.asked));
        }
        if let Some(first) = self.misread.first() {
            broken.push(format!("{} answers are not {:?}: {first}", self.misread.len(), row.provoked.reads));
        }
        match self.recovery {
            Some(_) => {}
            None if row.provoked.stated && self.advised.is_some_and(|advised| advised <= STATED) => {}
            None => broken.push(format!("the failing key does not recover: {:?}", self.before_recovery)),
        }
        broken
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let served = self.asked - self.unserved.len();
        if self.asked > 0 {
            write!(f, "others {served} of {}, slowest {} ms; ", self.asked, self.slowest.as_millis())?;
        }
        write!(f, "read {:?}; ", self.read)?;
        match self.recovery {
            Some(after) => write!(f, "recovered after {} ms", after.as_millis())?,
            None => write!(f, "not recovered within {PATIENCE:?}")?,
        }
        write!(f, " and {} refusals", self.before_recovery.len())
    }
}
