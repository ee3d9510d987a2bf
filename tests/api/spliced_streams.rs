//! `stream = "splice"`: a stream that breaks goes on at another deployment of its model.
//!
//! Wherever and however the first answer breaks, and whatever the other deployment does, the client receives either all
//! of one text with its end, once, or the beginning of it, our error and an aborted transport. No character is lost or
//! doubled.
//!
//! Start reading at [`wherever_a_stream_breaks_its_client_has_each_character_once`].

use crate::budgets::{answer_using, budget, price, priced_config, spent, worst_case};
use crate::config::{Config, MODEL, chat_request};
use crate::support::client::{Frame, Response};
use crate::support::gateway::{BEARER, provider_table};
use crate::support::journal::Request;
use crate::support::{
    BodyEnd, ChatAnswer, Ending, Gate, Script, ScriptedProvider, TestGateway, TestRequest, ToolCall, chat, chat_stream,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tierway::domain::reason::Reason;
use tierway::domain::receipt::{Outcome, Receipt};
use tokio::task::JoinSet;

const CHAT: &str = "/v1/chat/completions";
/// Every cut of this suite is reproducible from it.
const SEED: u64 = 0x5b_11_ce;
/// Cuts at random bytes, for each way to end and each kind of sibling.
const RANDOM_CUTS: usize = 24;
/// Requests in flight at once: stalls wait for `idle`.
const AT_ONCE: usize = 48;
/// Several bytes to a character, and what JSON escapes.
const TEXT: &str = "Hé, \"wörld\"\n😀 \\ über – 石!";
/// The character at which the text of a sibling differs that diverges.
const DIFFERS_AT: usize = 9;

/// A provider per name, in this order of preference, under `[routing] stream = "splice"`.
async fn gateway(names: &[&str]) -> (TestGateway, Vec<ScriptedProvider>) {
    let mut providers = Vec::new();
    for name in names {
        providers.push(ScriptedProvider::start(name).await);
    }
    let mut config = Config::of(&providers[0]).routing("balance = \"ordered\"\nstream = \"splice\"\nidle = \"250ms\"");
    for (name, provider) in names.iter().zip(&providers).skip(1) {
        config = config.other_deployment(&format!("{{ provider = \"{name}\" }}")).more(&provider_table(
            name,
            provider,
            &format!("{name}-east"),
        ));
    }
    (TestGateway::start(&config.text()).await, providers)
}

fn stream_request() -> String {
    chat_request(r#""stream":true,"#)
}

/// The frames of an answer with `text` in pieces of `size` characters; `escaped`: beyond ASCII all is `\u`.
fn frames(id: &str, text: &str, size: usize, escaped: bool) -> Vec<String> {
    let frame = |delta: Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        json!({"id": id, "object": "chat.completion.chunk", "created": id.len(), "model": MODEL, "choices": [choice]})
    };
    let characters: Vec<char> = text.chars().collect();
    let pieces = characters.chunks(size).map(|piece| frame(json!({"content": String::from_iter(piece)}), None));
    let all = [frame(json!({"role": "assistant", "content": ""}), None)].into_iter().chain(pieces);
    let payloads = all.chain([frame(json!({}), Some("stop"))]).map(|frame| frame.to_string());
    let units =
        |c: char| -> String { c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect() };
    let escape = |payload: String| -> String {
        let written = |c: char| if escaped && !c.is_ascii() { units(c) } else { c.to_string() };
        payload.chars().map(written).collect()
    };
    payloads.map(escape).chain(["[DONE]".to_owned()]).map(|payload| format!("data: {payload}\n\n")).collect()
}

fn script(frames: &[String]) -> Script {
    frames.iter().fold(Script::sse(), |script, frame| script.body(frame.clone()))
}

/// What the other deployment of a model does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sibling {
    /// Writes the same text.
    Same,
    /// Writes another text from [`DIFFERS_AT`] on.
    Diverging,
    /// Answers 503.
    Failing,
    /// Begins to write the same text, and breaks in its turn.
    Breaking,
}

impl Sibling {
    fn script(self) -> Script {
        // Cut and written otherwise than the first answer.
        let same = frames("of-the-sibling", TEXT, 5, true);
        match self {
            Self::Same => script(&same),
            Self::Diverging => script(&frames("of-the-sibling", &other_text(), 5, false)),
            Self::Failing => Script::status(503),
            Self::Breaking => script(&same).cut_after_frame(4, Ending::Fin),
        }
    }
}

fn other_text() -> String {
    TEXT.chars().enumerate().map(|(at, c)| if at == DIFFERS_AT { '#' } else { c }).collect()
}

/// One cut of the first answer.
#[derive(Clone, Copy, Debug)]
struct Cut {
    byte: usize,
    ending: Ending,
}

/// Every boundary between two frames, and random bytes. A stall comes only behind the first token: before it, a
/// deployment that stalls is silent, and is asked last from then on.
fn cuts(frames: &[String]) -> Vec<Cut> {
    println!("seed {SEED}");
    let mut rng = fastrand::Rng::with_seed(SEED);
    let end_of = |count: usize| -> usize { frames[..count].iter().map(String::len).sum() };
    let mut cuts = Vec::new();
    for ending in Ending::ALL {
        let first = if ending == Ending::Stall { end_of(2) } else { 0 };
        let boundaries = (0..frames.len()).map(end_of);
        let random: Vec<usize> = (0..RANDOM_CUTS).map(|_| rng.usize(first..end_of(frames.len()))).collect();
        cuts.extend(boundaries.chain(random).filter(|byte| *byte >= first).map(|byte| Cut { byte, ending }));
    }
    cuts
}

/// The text of a stream so far.
fn text_of(frames: &[Frame]) -> String {
    let deltas = frames.iter().map(|frame| frame.json()["choices"][0]["delta"]["content"].clone());
    deltas.filter_map(|content| content.as_str().map(str::to_owned)).collect()
}

fn finishes(frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| frame.json()["choices"][0]["finish_reason"].is_string()).count()
}

/// The text of a complete answer; `None` where it is the beginning of one and says so.
fn judged(answer: &Response, case: &str) -> Option<String> {
    let case = format!("{case}: {answer:?}");
    if answer.status != 200 {
        assert!((500..600).contains(&answer.status) && answer.end == BodyEnd::Clean, "{case}");
        assert!(answer.json()["error"]["message"].is_string(), "{case}");
        return None;
    }
    let frames: Vec<Frame> = answer.frames().into_iter().filter(|frame| frame.data().is_some()).collect();
    let (last, before) = frames.split_last().expect("there is one");
    let text = text_of(before);
    let ids: Vec<_> = before.iter().map(|frame| frame.json()["id"].clone()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "one answer has one id: {case}");
    let roles = before.iter().filter(|frame| frame.json()["choices"][0]["delta"]["role"].is_string());
    assert!(roles.count() <= 1, "{case}");
    if last.is_done() {
        assert_eq!((answer.end, finishes(before)), (BodyEnd::Clean, 1), "{case}");
        assert_eq!(answer.text().matches("[DONE]").count(), 1, "{case}");
        return Some(text);
    }
    let code = last.json()["error"]["code"].clone();
    assert!(code == "upstream_stream_interrupted" || code == "upstream_stream_diverged", "{case}");
    assert_eq!((answer.end, finishes(before)), (BodyEnd::Fin, 0), "the transport is aborted: {case}");
    let is_beginning = TEXT.starts_with(&text) || other_text().starts_with(&text);
    assert!(is_beginning && text.chars().count() < TEXT.chars().count() + 1, "{case}");
    None
}

/// Breaks the first answer in every way before `sibling`, and returns how often that went on, diverged and failed.
async fn matrix(sibling: Sibling) -> [f64; 3] {
    let (gateway, providers) = gateway(&["eu", "us"]).await;
    let gateway = Arc::new(gateway);
    let first = frames("of-the-first", TEXT, 3, false);
    let cuts = Arc::new(cuts(&first));
    let (of_cuts, whole) = (cuts.clone(), script(&first));
    providers[0].answers(Script::by(move |request: &Request| {
        let number = request.json()["x_case"].as_u64().expect("every request has its number") as usize;
        let Cut { byte, ending } = of_cuts[number];
        whole.clone().cut_at_body_byte(byte, ending)
    }));
    providers[1].answers(sibling.script());
    let (mut asking, mut complete) = (JoinSet::new(), 0);
    let mut check = |(number, answer): (usize, Response)| {
        let cut: Cut = cuts[number];
        let text = judged(&answer, &format!("{sibling:?}, {cut:?}"));
        complete += usize::from(text.is_some());
        match (sibling, text) {
            (Sibling::Diverging, Some(text)) => assert!(text == TEXT || text == other_text(), "{cut:?}: {text}"),
            (_, Some(text)) => assert_eq!(text, TEXT, "{sibling:?}, {cut:?}"),
            (Sibling::Same, None) => panic!("{cut:?} was not gone on with: {answer:?}"),
            (_, None) => {}
        }
    };
    for number in 0..cuts.len() {
        if asking.len() == AT_ONCE {
            check(asking.join_next().await.expect("some are asked").expect("no client fails"));
        }
        let gateway = gateway.clone();
        let body = chat_request(&format!("\"stream\":true,\"x_case\":{number},"));
        asking.spawn(async move { (number, gateway.chat(&body).await) });
    }
    while let Some(answered) = asking.join_next().await {
        check(answered.expect("no client fails"));
    }
    let receipts = gateway.receipts(cuts.len() as u64).await;
    assert!(receipts.iter().all(|receipt| receipt.attempts.len() <= 4));
    assert_eq!(receipts.iter().filter(|receipt| receipt.outcome == Outcome::Served).count(), complete);
    let outcomes = ["continued", "diverged", "failed"];
    let counted = outcomes.map(|outcome| gateway.metric(&format!("tierway_splices_total{{outcome=\"{outcome}\"}}")));
    println!("{sibling:?}: {} cuts, {complete} complete, {counted:?} {outcomes:?}", cuts.len());
    counted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_a_stream_breaks_its_client_has_each_character_once() {
    let [continued, diverged, failed] = matrix(Sibling::Same).await;
    assert!(continued > 60.0 && diverged == 0.0 && failed == 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_answer_is_never_gone_on_with() {
    let [continued, diverged, failed] = matrix(Sibling::Diverging).await;
    assert!(continued > 10.0 && diverged > 20.0 && failed == 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_other_deployment_answers_a_stream_ends_as_a_strict_one() {
    let [continued, diverged, failed] = matrix(Sibling::Failing).await;
    assert!(continued == 0.0 && diverged == 0.0 && failed > 60.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_breaks_is_no_end_either() {
    let [_, diverged, failed] = matrix(Sibling::Breaking).await;
    assert!(diverged == 0.0 && failed > 60.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_breaks_is_gone_on_with_while_attempts_are_left() {
    let (gateway, providers) = gateway(&["eu", "us", "asia"]).await;
    for (provider, frames) in providers.iter().zip([2, 4, usize::MAX]) {
        let answer = chat_stream(TEXT, 6);
        provider.answers(if frames > 6 { answer } else { answer.cut_after_frame(frames, Ending::Fin) });
    }
    let answer = gateway.chat(&stream_request()).await;
    assert_eq!(answer.chat_text().as_deref(), Ok(TEXT));
    let marks: Vec<_> = answer.text().lines().filter(|line| line.starts_with(": x-tierway-spliced ")).collect();
    let expected = ["us", "asia"].map(|name| format!(": x-tierway-spliced {name}/{MODEL}"));
    assert_eq!(marks, expected);
    assert_eq!((answer.deployment(), answer.attempts()), (&*format!("eu/{MODEL}"), 1), "as the head said");
    let receipt = only_receipt(&gateway).await;
    assert_eq!(receipt.replays().count(), 2, "{receipt:?}");
    let reasons: Vec<_> = receipt.attempts.iter().map(|attempt| attempt.reason).collect();
    assert_eq!(reasons[2], Reason::Served);
    assert!(reasons[..2].iter().all(|reason| *reason != Reason::Served), "{reasons:?}");
    assert_eq!(receipt.served.as_ref().map(|served| &*served.region), Some("asia-east"));
    let log = gateway.access_log();
    let line: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&line["replays"], &line["attempts"]), (&2.into(), &3.into()), "{line}");
}

async fn only_receipt(gateway: &TestGateway) -> Arc<Receipt> {
    gateway.receipts(1).await.remove(0)
}

#[tokio::test]
async fn the_clients_usage_is_that_of_the_answer_that_was_complete() {
    let pair = [ScriptedProvider::start("eu").await, ScriptedProvider::start("us").await];
    let request = TestRequest::stream("small").with_member(r#""stream_options":{"include_usage":true}"#);
    let worst = worst_case(&request);
    let answer = ChatAnswer { frames: 4, ..answer_using(30, 10) };
    pair[0].answers(chat(answer.clone()).cut_after_frame(3, Ending::Fin));
    pair[1].answers(chat(answer));
    let gateway = TestGateway::start(&spliced(&pair, 2 * worst)).await;
    let text = request.send_to(&gateway).await;
    let usage = text.frames().iter().find_map(|frame| frame.json()["usage"]["completion_tokens"].as_u64());
    assert_eq!((text.end, usage), (BodyEnd::Clean, Some(10)), "{text:?}");
    let receipt = only_receipt(&gateway).await;
    assert_eq!(receipt.usage.map(|usage| (usage.input, usage.output)), Some((30, 10)), "that of the replay");
    assert!(receipt.cost.0 > price(30, 10) && receipt.cost.0 <= price(30, 10) + worst, "{receipt:?}");
    assert!(receipt.estimated, "what broke off was not counted");
    assert_eq!(spent(&gateway, "one", 1).await, receipt.cost.0, "both are paid");
}

/// The configuration of two providers whose key has a budget of `limit`.
fn spliced(pair: &[ScriptedProvider; 2], limit: i64) -> String {
    let config = priced_config(&[("eu", &pair[0]), ("us", &pair[1])], &budget(limit), "");
    config.replace("balance = \"ordered\"", "balance = \"ordered\"\nstream = \"splice\"")
}

#[tokio::test]
async fn without_money_for_a_replay_the_stream_ends() {
    let pair = [ScriptedProvider::start("eu").await, ScriptedProvider::start("us").await];
    let request = TestRequest::stream("small");
    let answer = ChatAnswer { frames: 4, ..answer_using(30, 10) };
    pair[0].answers(chat(answer.clone()).cut_after_frame(3, Ending::Fin));
    pair[1].answers(chat(answer));
    let gateway = TestGateway::start(&spliced(&pair, worst_case(&request))).await;
    let broken = request.send_to(&gateway).await;
    assert_eq!(broken.end, BodyEnd::Fin);
    assert_eq!(
        broken.frames().last().map(|frame| frame.json()["error"]["code"].clone()),
        Some("upstream_stream_interrupted".into())
    );
    assert_eq!(pair[1].attempts(), 0, "nothing was sent");
    let receipt = only_receipt(&gateway).await;
    assert_eq!((receipt.outcome, receipt.attempts.len()), (Outcome::Broken, 1));
    assert_eq!(spent(&gateway, "one", 1).await, receipt.cost.0);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_replay() {
    let (gateway, providers) = gateway(&["eu", "us"]).await;
    let never = Gate::new();
    providers[0].answers(chat_stream(TEXT, 6).cut_after_frame(3, Ending::Fin));
    providers[1].answers(chat_stream(TEXT, 6).wait_before_headers(&never));
    let mut client = gateway.connect().await;
    client.post(CHAT, &[("authorization", BEARER)], &stream_request()).await;
    assert_eq!(client.head().await.0, 200);
    providers[1].attempted(1).await;
    client.reset();
    assert!(providers[1].at_rest().await.only().client_closed_at().is_some(), "it is cancelled");
    let receipt = only_receipt(&gateway).await;
    assert_eq!((receipt.outcome, receipt.reason), (Outcome::Abandoned, Reason::ClientGone));
    assert!(receipt.first_token.is_some() && receipt.usage.is_some_and(|usage| usage.output > 0), "{receipt:?}");
}

/// What the first deployment sends before it breaks, and the request: neither may be replayed.
async fn stays_strict(members: &str, broken: Script) {
    let (gateway, providers) = gateway(&["eu", "us"]).await;
    providers[0].answers(broken);
    providers[1].answers(chat_stream(TEXT, 6));
    let answer = gateway.chat(&chat_request(&format!("\"stream\":true,{members}"))).await;
    assert_eq!(answer.end, BodyEnd::Fin, "{members}: {answer:?}");
    assert_eq!(providers[1].attempts(), 0, "{members}");
}

#[tokio::test]
async fn what_is_more_than_text_stays_strict() {
    let text = || chat_stream(TEXT, 6).cut_after_frame(3, Ending::Fin);
    let calls = ChatAnswer {
        tool_calls: vec![ToolCall { name: "weather", arguments: "{\"city\":\"Oslo\"}" }],
        frames: 4,
        ..ChatAnswer::default()
    };
    stays_strict(r#""tools":[{"type":"function"}],"#, chat(calls).cut_after_frame(3, Ending::Fin)).await;
    stays_strict(r#""logprobs":true,"#, text()).await;
    stays_strict(r#""response_format":{"type":"json_schema","json_schema":{}},"#, text()).await;
}

#[tokio::test]
async fn another_model_never_goes_on() {
    let pair = [ScriptedProvider::start("eu").await, ScriptedProvider::start("us").await];
    pair[0].answers(chat_stream(TEXT, 6).cut_after_frame(3, Ending::Fin));
    pair[1].answers(chat_stream(TEXT, 6));
    let tables = [provider_table("eu", &pair[0], "eu"), provider_table("us", &pair[1], "us")].concat();
    let config = format!(
        "{tables}[models.a]\ndeployments = [{{ provider = \"eu\" }}]\n[models.b]\ndeployments = [{{ provider = \"us\" }}]\n\
         [tiers.one]\nmodels = [\"a\", \"b\"]\n[routing]\nbalance = \"ordered\"\nstream = \"splice\"\n{}",
        crate::support::gateway::ALLOW_ALL
    );
    let gateway = TestGateway::start(&config).await;
    let answer = TestRequest::stream("a").send_to(&gateway).await;
    assert_eq!((answer.end, pair[1].attempts()), (BodyEnd::Fin, 0), "{answer:?}");
}

#[tokio::test]
async fn a_stream_that_stalls_goes_on_after_idle() {
    let (gateway, providers) = gateway(&["eu", "us"]).await;
    let never = Gate::new();
    providers[0].answers(chat_stream(TEXT, 6).wait_after_frame(3, &never));
    providers[1].answers(chat_stream(TEXT, 3));
    let answer = gateway.chat(&stream_request()).await;
    assert_eq!(answer.chat_text().as_deref(), Ok(TEXT));
    let receipt = only_receipt(&gateway).await;
    assert_eq!(receipt.attempts[0].reason, Reason::IdleTimeout);
    assert!(receipt.attempts[1].started.is_some_and(|started| started >= Duration::from_millis(250)));
}
