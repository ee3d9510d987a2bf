//! Responses that a provider makes in the background: bound to their account at once, billed once, when their end is seen
//! first; what is held for them stays held until then.
//!
//! Start reading at [`a_response_is_billed_by_the_request_that_sees_its_end_first`].

use crate::config::{Config, MODEL};
use crate::stored::response;
use crate::support::gateway::{BEARER, OTHER_KEY, compile};
use crate::support::journal::Request;
use crate::support::{BodyEnd, Gate, Response, Script, ScriptedProvider, TestGateway, TestRequest};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tierway::domain::money::NanoUsd;
use tierway::domain::receipt::{Outcome, Receipt};
use tierway::store::Stores;
use tierway::store::memory::MemoryLedger;

const PATH: &str = "/v1/responses";
const MODEL_LINES: &str =
    "endpoints = [\"responses\"]\nprice = { input = \"1\", output = \"4\" }\ncontext = 8000\nmax_output = 100";
const BUDGET: &str = "budget = { limit = \"100\", window = \"month\" }";
const OTHER_APP: &str = "[[keys]]\nname = \"other\"\npolicy = \"all\"\nsecret = \"env:OTHER_KEY\"";
/// What every response uses: 100 tokens of input and 7 of output.
const COST: i64 = 100 * 1_000 + 7 * 4_000;

fn event(number: usize, name: &str, rest: &str) -> String {
    format!("event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":{number},{rest}}}\n\n")
}

fn events(id: &str) -> [String; 4] {
    [
        event(0, "response.queued", &format!(r#""response":{{"id":"{id}","status":"queued"}}"#)),
        event(1, "response.output_text.delta", r#""delta":"H""#),
        event(2, "response.output_text.delta", r#""delta":"i""#),
        event(3, "response.completed", &format!(r#""response":{}"#, response(id, "completed"))),
    ]
}

/// A provider that works in the background, and when its work is done.
struct Worker {
    provider: ScriptedProvider,
    done: Arc<AtomicBool>,
    /// Where its streams wait after their second event.
    gate: Gate,
}

impl Worker {
    async fn start() -> Self {
        let provider = ScriptedProvider::start("eu").await;
        let (done, gate, number) = (Arc::new(AtomicBool::new(false)), Gate::new(), AtomicU64::new(0));
        let (is_done, waits) = (done.clone(), gate.clone());
        provider.answers(Script::by(move |request: &Request| {
            let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
            let is_post = request.method == "POST";
            let id = match path.split('/').nth(3) {
                Some(id) => id.to_owned(),
                None => format!("resp_{}", number.fetch_add(1, Ordering::Relaxed)),
            };
            let streams = request.streams() || query.contains("stream=true");
            if streams {
                let after =
                    query.split('&').find_map(|pair| pair.strip_prefix("starting_after=")?.parse::<usize>().ok());
                let all = events(&id);
                let script = all[after.map_or(0, |after| after + 1)..].iter();
                let script = script.fold(Script::sse(), |script, event| script.body(event.clone()));
                return if is_post { script.wait_after_frame(2, &waits) } else { script };
            }
            let is_over = is_done.load(Ordering::Relaxed) && !(is_post && path == PATH);
            let text = match (path.ends_with("/cancel"), is_over) {
                (true, _) => response(&id, "cancelled"),
                (false, true) => response(&id, "completed"),
                (false, false) => {
                    format!(r#"{{"id":"{id}","object":"response","status":"queued","output":[],"usage":null}}"#)
                }
            };
            Script::status(200).header("content-type", "application/json").body(text)
        }));
        Self { provider, done, gate }
    }

    fn config(&self) -> Config {
        Config::of(&self.provider).model(MODEL_LINES).policy(BUDGET).more(OTHER_APP)
    }

    fn is_done(&self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

fn body(more: &str) -> String {
    format!("{{\"model\":\"{MODEL}\",\"input\":\"Hi\",\"background\":true{more}}}")
}

/// Begins a response; returns its id.
async fn begun(gateway: &TestGateway) -> String {
    let answer = gateway.post(PATH, &[], &body("")).await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("queued")), "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

async fn polled(gateway: &TestGateway, id: &str) -> Response {
    let answer = gateway.get(&format!("{PATH}/{id}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// What the key's budget has spent and holds.
fn balance(gateway: &TestGateway) -> (i64, i64) {
    let all = gateway.relay.budgets();
    let of_app = all.iter().find(|status| &*status.account.name == "app").expect("it has a budget");
    (of_app.spent.0, of_app.held.0)
}

async fn receipts(gateway: &TestGateway) -> Vec<Arc<Receipt>> {
    gateway.receipts(gateway.relay.entered()).await
}

#[tokio::test]
async fn a_response_is_billed_by_the_request_that_sees_its_end_first() {
    let worker = Worker::start().await;
    let gateway = TestGateway::start(&worker.config().text()).await;
    let id = begun(&gateway).await;
    let held = balance(&gateway).1;
    assert!(held >= 100 * 4_000, "the ceiling of the output is held: {held}");
    for _ in 0..3 {
        polled(&gateway, &id).await;
        assert_eq!(balance(&gateway), (0, held));
    }
    worker.is_done();
    let first = polled(&gateway, &id).await;
    assert_eq!(first.header("x-tierway-cost-usd"), Some("0.000128"));
    for _ in 0..3 {
        polled(&gateway, &id).await;
    }
    let all = receipts(&gateway).await;
    let costs: Vec<i64> = all.iter().map(|receipt| receipt.cost.0).collect();
    assert_eq!(costs, [0, 0, 0, 0, COST, 0, 0, 0]);
    let tokens: Vec<u64> = all.iter().map(|receipt| receipt.usage.map_or(0, |usage| usage.total())).collect();
    assert_eq!(tokens, [0, 0, 0, 0, 107, 0, 0, 0]);
    assert!(all.iter().all(|receipt| !receipt.estimated && receipt.outcome == Outcome::Served));
    assert_eq!(all[4].charges.iter().map(|charge| charge.spent).collect::<Vec<_>>(), [NanoUsd(COST)]);
    assert_eq!(balance(&gateway), (COST, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_billed_once_however_many_see_its_end_together() {
    let worker = Worker::start().await;
    worker.is_done();
    let gateway = Arc::new(TestGateway::start(&worker.config().text()).await);
    for round in 1..=8 {
        let id = begun(&gateway).await;
        let polls = (0..12).map(|poll| {
            let (gateway, id) = (gateway.clone(), id.clone());
            let path = if poll % 3 == 0 { format!("{PATH}/{id}?stream=true") } else { format!("{PATH}/{id}") };
            tokio::spawn(async move { gateway.get(&path).await.status })
        });
        for poll in polls.collect::<Vec<_>>() {
            assert_eq!(poll.await.expect("it is polled"), 200);
        }
        let all = receipts(&gateway).await;
        assert_eq!(all.iter().filter(|receipt| receipt.cost.0 > 0).count(), round);
        assert_eq!(balance(&gateway), (COST * round as i64, 0));
    }
}

#[tokio::test]
async fn a_cancelled_response_is_billed_for_what_it_used() {
    let worker = Worker::start().await;
    let gateway = TestGateway::start(&worker.config().text()).await;
    let id = begun(&gateway).await;
    assert_eq!(gateway.post(&format!("{PATH}/{id}/cancel"), &[], "").await.status, 200);
    assert_eq!(balance(&gateway), (COST, 0));
    worker.is_done();
    polled(&gateway, &id).await;
    assert_eq!(receipts(&gateway).await.iter().filter(|receipt| receipt.cost.0 > 0).count(), 1);
}

/// A stream whose client stays bills it; one whose client leaves is resumed where it was, and that bills it.
#[tokio::test]
async fn a_streamed_response_goes_on_without_its_client() {
    let worker = Worker::start().await;
    let gateway = TestGateway::start(&worker.config().text()).await;
    let mut client = gateway.connect().await;
    client.post(PATH, &[("authorization", BEARER)], &body(",\"stream\":true")).await;
    assert_eq!(client.head().await.0, 200);
    let first = client.frame().await.expect("the first event comes before any text");
    assert!(first.data().is_some_and(|data| data.contains("response.queued")));
    client.frame().await.expect("the second event");
    worker.gate.reached(1).await;
    drop(client);
    let left = gateway.receipts(1).await;
    assert_eq!((left[0].outcome, left[0].cost.0), (Outcome::Abandoned, 0));
    assert!(balance(&gateway).1 > 0);
    let rest = gateway.get(&format!("{PATH}/resp_0?stream=true&starting_after=1")).await;
    assert_eq!((rest.text(), rest.end), (&*events("resp_0")[2..].concat(), BodyEnd::Clean));
    assert_eq!(receipts(&gateway).await[1].cost.0, COST);
    assert_eq!(balance(&gateway), (COST, 0));
    worker.gate.open();
    let whole = gateway.post(PATH, &[], &body(",\"stream\":true")).await;
    assert_eq!((whole.text(), whole.end), (&*events("resp_1").concat(), BodyEnd::Clean));
    polled(&gateway, "resp_1").await;
    assert_eq!(balance(&gateway), (2 * COST, 0));
}

#[tokio::test]
async fn another_key_neither_reads_it_nor_is_billed_for_it() {
    let worker = Worker::start().await;
    worker.is_done();
    let gateway = TestGateway::start(&worker.config().text()).await;
    let id = begun(&gateway).await;
    let held = balance(&gateway);
    let previous = format!("{{\"model\":\"{MODEL}\",\"input\":\"Hi\",\"previous_response_id\":\"{id}\"}}");
    let other = TestRequest::new(PATH, previous).with_key(OTHER_KEY).send_to(&gateway).await;
    assert_eq!((other.status, balance(&gateway)), (404, held));
    let mut client = gateway.connect().await;
    client.get(&format!("{PATH}/{id}"), &[("authorization", &format!("Bearer {OTHER_KEY}"))]).await;
    assert_eq!((client.response().await.status, balance(&gateway)), (404, held));
    polled(&gateway, &id).await;
    assert_eq!(balance(&gateway), (COST, 0));
}

/// What was held counts as spent when the gateway stops; the response still has one line, from the next one.
#[tokio::test]
async fn it_is_billed_once_across_a_restart() {
    let worker = Worker::start().await;
    let stores = Stores::memory().await;
    let start = async || {
        let ledger = Arc::new(MemoryLedger::default());
        let stores = Stores { ledger: ledger.clone(), ..stores.clone() };
        TestGateway::start_with_stores(compile(&worker.config().text()), 1, ledger, stores).await
    };
    let first = start().await;
    let (id, billed) = (begun(&first).await, begun(&first).await);
    let held = balance(&first).1;
    worker.is_done();
    polled(&first, &billed).await;
    first.relay.close_budget_pool().await;
    drop(first);
    let second = start().await;
    for id in [&id, &billed, &id] {
        polled(&second, id).await;
    }
    let all = receipts(&second).await;
    assert_eq!(all.iter().map(|receipt| receipt.cost.0).collect::<Vec<_>>(), [COST, 0, 0]);
    assert!(all.iter().all(|receipt| receipt.charges.is_empty()), "it was charged when the first one stopped");
    // A lease tells what is spent.
    begun(&second).await;
    assert_eq!(balance(&second), (COST + held / 2, held / 2));
}

#[tokio::test]
async fn what_is_deleted_before_its_end_counts_as_spent() {
    let worker = Worker::start().await;
    let gateway = TestGateway::start(&worker.config().text()).await;
    let id = begun(&gateway).await;
    let held = balance(&gateway).1;
    let mut client = gateway.connect().await;
    client.send(format!("DELETE {PATH}/{id} HTTP/1.1\r\nhost: tests\r\nauthorization: {BEARER}\r\n\r\n")).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(balance(&gateway), (held, 0));
}

#[tokio::test]
async fn it_must_be_stored() {
    let worker = Worker::start().await;
    let gateway = TestGateway::start(&worker.config().text()).await;
    let answer = gateway.post(PATH, &[], &body(",\"store\":false")).await;
    assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some("background")));
    assert_eq!(worker.provider.attempts(), 0);
}
