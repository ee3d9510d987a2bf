//! Requests that find the gateway or every deployment full: who waits, who is served next, and who is refused at once. The order is
//! decided and tested in `domain/routing/queue.rs`, and simulated in `tests/simulation/sharing.rs`; these tests cover what a
//! client sees.

use crate::support::client::Response;
use crate::support::gateway::{KEY, OTHER_KEY, provider_table};
use crate::support::{ChatAnswer, Client, Gate, Script, ScriptedProvider, TestGateway, TestRequest, chat, soon};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Two policies, with a key each, before one deployment with so many places. Requests wait as long as a test needs.
async fn gateway_with(places: u32, standard: &str) -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(chat(ChatAnswer::default()));
    let places = format!(", max_concurrent = {places}");
    (TestGateway::start(&config(&provider, "", &places, standard)).await, provider)
}

/// The same, with these limits of the gateway and of the deployment of `small`; `large` has one without a limit.
fn config(provider: &ScriptedProvider, of_gateway: &str, of_deployment: &str, standard: &str) -> String {
    format!(
        r#"
        [server]
        {of_gateway}
        {}
        [models.small]
        deployments = [{{ provider = "p"{of_deployment} }}]
        [models.large]
        deployments = [{{ provider = "p" }}]
        [routing]
        queue_wait = "60s"
        [policies.standard]
        models = ["*"]
        {standard}
        [policies.pro]
        models = ["*"]
        priority = 8
        [[keys]]
        name   = "one"
        policy = "standard"
        secret = "env:TEST_KEY"
        [[keys]]
        name   = "other"
        policy = "pro"
        secret = "env:OTHER_KEY"
        "#,
        provider_table("p", provider, "east")
    )
}

/// A request whose answer waits for the gate of its name.
fn named(key: &str, name: &str) -> TestRequest {
    TestRequest::chat("small").with_key(key).with_member(&format!("\"user\":\"{name}\""))
}

/// Sent on a connection of its own; its answer is awaited later.
fn sent(gateway: &TestGateway, request: TestRequest) -> JoinHandle<Response> {
    let addr = gateway.addr;
    tokio::spawn(async move {
        let mut client = Client::connect(addr).await;
        request.send(&mut client).await;
        client.response().await
    })
}

async fn answer(sent: JoinHandle<Response>) -> Response {
    soon("an answer", sent).await.expect("no panic")
}

/// Waits until so many requests of `policy` wait for a place.
async fn waiting(gateway: &TestGateway, policy: &str, wanted: f64) {
    let series = format!("tierway_queue_depth{{policy=\"{policy}\"}}");
    let reached = async {
        while gateway.metric(&series) != wanted {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon("a number of waiting requests", reached).await;
}

/// The provider answers all requests named `held` when the gate opens, and all others at once.
fn hold(provider: &ScriptedProvider, gate: &Gate) {
    let gate = gate.clone();
    provider.answers(Script::by(move |request| match request.json()["user"].as_str() {
        Some("held") => chat(ChatAnswer::default()).wait_before_headers(&gate),
        _ => chat(ChatAnswer::default()),
    }));
}

/// Places are known to become free quickly, so that many requests may wait for one.
async fn warm(gateway: &TestGateway) {
    for _ in 0..4 {
        assert_eq!(named(KEY, "warm").send_to(gateway).await.status, 200);
    }
}

fn order(provider: &ScriptedProvider) -> Vec<String> {
    let users = provider.journal();
    users.requests().map(|request| request.json()["user"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn places_that_become_free_are_given_by_priority() {
    let (gateway, provider) = gateway_with(1, "").await;
    warm(&gateway).await;
    let gate = Gate::new();
    hold(&provider, &gate);
    let held = sent(&gateway, named(KEY, "held"));
    gate.reached(1).await;
    let mut waiters = Vec::new();
    for count in 1..=3 {
        waiters.push(sent(&gateway, named(KEY, "standard")));
        waiting(&gateway, "standard", f64::from(count)).await;
    }
    for count in 1..=3 {
        waiters.push(sent(&gateway, named(OTHER_KEY, "pro")));
        waiting(&gateway, "pro", f64::from(count)).await;
    }
    provider.clear();
    gate.open();
    assert_eq!(answer(held).await.status, 200);
    for waiter in waiters {
        assert_eq!(answer(waiter).await.status, 200);
    }
    assert_eq!(order(&provider), ["standard", "pro", "pro", "pro", "standard", "standard"], "eight turns for one");
    assert_eq!(gateway.metric("tierway_queue_depth{policy=\"pro\"}"), 0.0);
    assert_eq!(gateway.metric("tierway_queue_wait_seconds_count{policy=\"standard\"}"), 3.0);
    assert_eq!(gateway.metric("tierway_queue_wait_seconds_count{policy=\"pro\"}"), 3.0);
}

#[tokio::test]
async fn who_cannot_be_served_in_time_is_refused_while_others_wait() {
    let (gateway, provider) = gateway_with(1, "").await;
    let gate = Gate::new();
    hold(&provider, &gate);
    let held = sent(&gateway, named(KEY, "held"));
    gate.reached(1).await;
    // Nothing is known of how soon a place becomes free: one may wait for each place, and one of each policy.
    let first = sent(&gateway, named(KEY, "standard"));
    waiting(&gateway, "standard", 1.0).await;
    for request in [named(KEY, "standard"), TestRequest::stream("small")] {
        let refused = request.send_to(&gateway).await;
        assert_eq!((refused.refusal(), refused.attempts()), ((429, "slow_down".into()), 0));
        let wait = refused.retry_after();
        assert!((700..=1300).contains(&wait.as_millis()), "a second, give or take 30 %, not {wait:?}");
    }
    let pro = sent(&gateway, named(OTHER_KEY, "pro"));
    waiting(&gateway, "pro", 1.0).await;
    assert_eq!(gateway.metric("tierway_shed_total{policy=\"standard\"}"), 2.0);
    gate.open();
    for waiter in [held, first, pro] {
        assert_eq!(answer(waiter).await.status, 200);
    }
}

#[tokio::test]
async fn a_request_waits_no_longer_than_its_own_time_and_holds_no_rate_meanwhile() {
    let (gateway, provider) = gateway_with(1, "requests_per_minute = 2").await;
    let gate = Gate::new();
    hold(&provider, &gate);
    let held = sent(&gateway, named(KEY, "held"));
    gate.reached(1).await;
    let hurried = named(KEY, "hurried").header("x-tierway-deadline-ms", "50").send_to(&gateway).await;
    assert_eq!(hurried.refusal(), (429, "slow_down".into()));
    waiting(&gateway, "standard", 0.0).await;
    gate.open();
    assert_eq!(answer(held).await.status, 200);
    let second = named(KEY, "second").send_to(&gateway).await;
    assert_eq!(second.status, 200, "a request that was shed took nothing of the key's rate");
    let third = named(KEY, "third").send_to(&gateway).await;
    assert_eq!(third.refusal(), (429, "rate_limit_exceeded".into()));
}

#[tokio::test]
async fn a_client_that_leaves_leaves_the_queue_and_its_place_is_the_next_ones() {
    let (gateway, provider) = gateway_with(1, "").await;
    warm(&gateway).await;
    let gate = Gate::new();
    hold(&provider, &gate);
    let held = sent(&gateway, named(KEY, "held"));
    gate.reached(1).await;
    let mut leaving = Client::connect(gateway.addr).await;
    named(KEY, "leaving").send(&mut leaving).await;
    waiting(&gateway, "standard", 1.0).await;
    let next = sent(&gateway, named(KEY, "next"));
    waiting(&gateway, "standard", 2.0).await;
    provider.clear();
    leaving.reset();
    waiting(&gateway, "standard", 1.0).await;
    gate.open();
    assert_eq!((answer(held).await.status, answer(next).await.status), (200, 200));
    assert_eq!(order(&provider), ["next"]);
}

/// One key's requests are long in flight, and more of them wait.
#[tokio::test]
async fn a_key_that_holds_less_comes_before_one_that_holds_more() {
    let provider = ScriptedProvider::start("p").await;
    let keys = "[policies.all]\nmodels = [\"*\"]\n[[keys]]\nname = \"greedy\"\npolicy = \"all\"\nsecret = \"env:TEST_KEY\"\n\
                [[keys]]\nname = \"other\"\npolicy = \"all\"\nsecret = \"env:OTHER_KEY\"\n";
    let config = format!(
        "{}[models.small]\ndeployments = [{{ provider = \"p\", max_concurrent = 2 }}]\n\
         [routing]\nqueue_wait = \"60s\"\n{keys}",
        provider_table("p", &provider, "east"),
    );
    let gateway = TestGateway::start(&config).await;
    provider.answers(chat(ChatAnswer::default()));
    warm(&gateway).await;
    let gates = [Gate::new(), Gate::new()];
    let [one, two] = gates.clone();
    provider.answers(Script::by(move |request| match request.json()["user"].as_str() {
        Some("one") => chat(ChatAnswer::default()).wait_before_headers(&one),
        Some("two") => chat(ChatAnswer::default()).wait_before_headers(&two),
        _ => chat(ChatAnswer::default()),
    }));
    let held = ["one", "two"].map(|user| sent(&gateway, named(KEY, user)));
    for gate in &gates {
        gate.reached(1).await;
    }
    let mut waiters = Vec::new();
    for count in 1..=3 {
        waiters.push(sent(&gateway, named(KEY, "greedy")));
        waiting(&gateway, "all", f64::from(count)).await;
    }
    waiters.push(sent(&gateway, named(OTHER_KEY, "other")));
    waiting(&gateway, "all", 4.0).await;
    provider.clear();
    gates[0].open();
    for waiter in waiters {
        assert_eq!(answer(waiter).await.status, 200);
    }
    assert_eq!(order(&provider), ["other", "greedy", "greedy", "greedy"]);
    gates[1].open();
    for request in held {
        assert_eq!(answer(request).await.status, 200);
    }
}

#[tokio::test]
async fn dedicated_places_are_lent_while_idle_and_given_back_to_reserved_requests_first() {
    let provider = ScriptedProvider::start("p").await;
    let dedicated = ScriptedProvider::start("d").await;
    let config = format!(
        "{}{}[models.small]\ndeployments = [{{ provider = \"p\", max_concurrent = 1 }},\n\
         {{ provider = \"d\", capacity = \"dedicated\", max_concurrent = 2, lend = true }}]\n\
         [routing]\nqueue_wait = \"60s\"\n[policies.all]\nmodels = [\"*\"]\nreserved = true\n\
         [[keys]]\nname = \"one\"\npolicy = \"all\"\nsecret = \"env:TEST_KEY\"\n",
        provider_table("p", &provider, "east"),
        provider_table("d", &dedicated, "east"),
    );
    let gateway = TestGateway::start(&config).await;
    let (shared, lent, pro) = (Gate::new(), Gate::new(), Gate::new());
    provider.answers(chat(ChatAnswer::default()).wait_before_headers(&shared));
    let [of_lent, of_pro] = [lent.clone(), pro.clone()];
    dedicated.answers(Script::by(move |request| match request.json()["user"].as_str() {
        Some("lent") => chat(ChatAnswer::default()).wait_before_headers(&of_lent),
        Some("pro") => chat(ChatAnswer::default()).wait_before_headers(&of_pro),
        _ => chat(ChatAnswer::default()),
    }));
    let reserved =
        |name: &str| TestRequest::chat("Pro/small").with_key(KEY).with_member(&format!("\"user\":\"{name}\""));
    let first = sent(&gateway, named(KEY, "shared"));
    shared.reached(1).await;
    let second = sent(&gateway, named(KEY, "lent"));
    lent.reached(1).await;
    // The other dedicated place is kept.
    let hurried = named(KEY, "hurried").header("x-tierway-deadline-ms", "50").send_to(&gateway).await;
    assert_eq!(hurried.refusal(), (429, "slow_down".into()));
    let third = sent(&gateway, reserved("pro"));
    pro.reached(1).await;
    assert_eq!(gateway.metric("tierway_reserved_honoured_total"), 1.0);
    let missed = reserved("missed").header("x-tierway-deadline-ms", "50").send_to(&gateway).await;
    assert_eq!(missed.refusal(), (429, "slow_down".into()));
    assert_eq!(gateway.metric("tierway_reserved_missed_total"), 1.0);
    let plain = sent(&gateway, named(KEY, "plain"));
    waiting(&gateway, "all", 1.0).await;
    let next = sent(&gateway, reserved("next"));
    waiting(&gateway, "all", 2.0).await;
    dedicated.clear();
    lent.open();
    assert_eq!((answer(second).await.status, answer(next).await.status), (200, 200));
    assert_eq!(order(&dedicated).first().map(String::as_str), Some("next"), "it came later, and goes first");
    shared.open();
    pro.open();
    for request in [first, third, plain] {
        assert_eq!(answer(request).await.status, 200);
    }
    assert_eq!(gateway.metric("tierway_reserved_honoured_total"), 2.0);
}

/// A gateway that carries one request, which is a stream that was answered and goes on until the gate opens.
async fn gateway_with_one_stream() -> (TestGateway, ScriptedProvider, Gate, JoinHandle<Response>) {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(chat(ChatAnswer::default()));
    let gateway = TestGateway::start(&config(&provider, "max_in_flight = 1", "", "")).await;
    warm(&gateway).await;
    let gate = Gate::new();
    let held = gate.clone();
    provider.answers(Script::by(move |request| match request.json()["user"].as_str() {
        Some("held") => chat(ChatAnswer::default()).wait_after_frame(2, &held),
        _ => chat(ChatAnswer::default()),
    }));
    let stream = sent(&gateway, TestRequest::stream("small").with_key(KEY).with_member("\"user\":\"held\""));
    gate.reached(1).await;
    provider.clear();
    (gateway, provider, gate, stream)
}

#[tokio::test]
async fn a_place_of_the_gateway_is_kept_until_the_answer_ends_and_given_by_priority() {
    let (gateway, provider, gate, stream) = gateway_with_one_stream().await;
    assert_eq!(gateway.metric("tierway_max_in_flight"), 1.0);
    let mut waiters = Vec::new();
    for count in 1..=2 {
        waiters.push(sent(&gateway, named(KEY, "standard")));
        waiting(&gateway, "standard", f64::from(count)).await;
    }
    for count in 1..=2 {
        waiters.push(sent(&gateway, named(OTHER_KEY, "pro")));
        waiting(&gateway, "pro", f64::from(count)).await;
    }
    let hurried = named(KEY, "hurried").header("x-tierway-deadline-ms", "50").send_to(&gateway).await;
    assert_eq!((hurried.refusal(), hurried.attempts()), ((429, "slow_down".into()), 0));
    assert!((700..=1300).contains(&hurried.retry_after().as_millis()));
    gate.open();
    assert_eq!(answer(stream).await.status, 200);
    for waiter in waiters {
        assert_eq!(answer(waiter).await.status, 200);
    }
    assert_eq!(order(&provider), ["standard", "pro", "pro", "standard"]);
}

#[tokio::test]
async fn a_reload_that_raises_or_removes_the_limit_of_the_gateway_lets_the_waiting_go_on() {
    let (gateway, provider, gate, stream) = gateway_with_one_stream().await;
    let second = sent(&gateway, TestRequest::stream("small").with_key(KEY).with_member("\"user\":\"held\""));
    waiting(&gateway, "standard", 1.0).await;
    gateway.reload(&config(&provider, "max_in_flight = 2", "", ""));
    gate.reached(2).await;
    assert_eq!(gateway.metric("tierway_max_in_flight"), 2.0);
    let third = sent(&gateway, named(KEY, "third"));
    waiting(&gateway, "standard", 1.0).await;
    gateway.reload(&config(&provider, "", "", ""));
    assert_eq!(answer(third).await.status, 200);
    assert_eq!(gateway.metric("tierway_max_in_flight"), 0.0);
    gate.open();
    assert_eq!((answer(stream).await.status, answer(second).await.status), (200, 200));
    gateway.reload(&config(&provider, "max_in_flight = \"adaptive\"\nadaptive_at_most = 90", "", ""));
    assert_eq!(gateway.metric("tierway_max_in_flight"), 90.0, "nothing was measured yet");
}

#[tokio::test]
async fn who_waits_for_a_deployment_takes_no_place_of_the_gateway() {
    let provider = ScriptedProvider::start("p").await;
    let config = config(&provider, "max_in_flight = 2", ", max_concurrent = 1", "");
    let gateway = TestGateway::start(&config).await;
    let gate = Gate::new();
    hold(&provider, &gate);
    let held = sent(&gateway, named(KEY, "held"));
    gate.reached(1).await;
    let waits = sent(&gateway, named(KEY, "waits"));
    waiting(&gateway, "standard", 1.0).await;
    let other = TestRequest::chat("large").with_key(KEY).with_member("\"user\":\"other\"").send_to(&gateway).await;
    assert_eq!(other.status, 200);
    gate.open();
    assert_eq!((answer(held).await.status, answer(waits).await.status), (200, 200));
}

#[tokio::test]
async fn a_reserved_request_does_not_wait_for_a_gateway_that_others_fill() {
    let provider = ScriptedProvider::start("p").await;
    let config = format!(
        "[server]\nmax_in_flight = 1\n{}[models.small]\ndeployments = [{{ provider = \"p\" }},\n\
         {{ provider = \"p\", capacity = \"dedicated\", max_concurrent = 1 }}]\n\
         [routing]\nqueue_wait = \"60s\"\n[policies.all]\nmodels = [\"*\"]\nreserved = true\n\
         [[keys]]\nname = \"one\"\npolicy = \"all\"\nsecret = \"env:TEST_KEY\"\n",
        provider_table("p", &provider, "east"),
    );
    let gateway = TestGateway::start(&config).await;
    let gate = Gate::new();
    hold(&provider, &gate);
    let held = sent(&gateway, named(KEY, "held"));
    gate.reached(1).await;
    let waits = sent(&gateway, named(KEY, "waits"));
    waiting(&gateway, "all", 1.0).await;
    let reserved = TestRequest::chat("Pro/small").with_key(KEY).with_member("\"user\":\"reserved\"");
    assert_eq!(reserved.send_to(&gateway).await.status, 200);
    assert_eq!(gateway.metric("tierway_queue_depth{policy=\"all\"}"), 1.0, "its end gives nothing to others");
    gate.open();
    assert_eq!((answer(held).await.status, answer(waits).await.status), (200, 200));
}
