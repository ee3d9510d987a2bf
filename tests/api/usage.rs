//! Usage: what a provider says it used is what is charged, wherever it says it; what it does not say is estimated.
//!
//! How a count is read and an estimate is made is proven in `protocol::chat::answer`, `upstream::meter` and
//! `domain::estimate`; here it is the receipt and the metrics of the whole path.

use crate::support::gateway::reached;
use crate::support::{Ask, Chat, Ending, Script, ScriptedProvider, TestGateway, Usage, chat};
use serde_json::{Value, json};
use std::sync::Arc;
use tierway::domain::receipt::Receipt;

/// Nano-dollars for a token: fresh in, cached in, out.
const INPUT: i64 = 1_000;
const CACHED: i64 = 500;
const OUTPUT: i64 = 2_000;
const IMPOSSIBLE: &str = "tierway_answers_with_impossible_usage_total";

fn house(provider: &ScriptedProvider) -> String {
    format!(
        r#"{}
        [models.small]
        price       = {{ input = "1", cached_input = "0.5", output = "2" }}
        deployments = [{{ provider = "p" }}]
        [policies.all]
        models = ["*"]
        [[keys]]
        name   = "one"
        policy = "all"
        secret = "env:TEST_KEY"
        "#,
        reached("p", provider, "p")
    )
}

/// A gateway before one provider, and the receipts so far.
struct Bench {
    provider: ScriptedProvider,
    gateway: TestGateway,
    asked: u64,
}

impl Bench {
    async fn new() -> Self {
        let provider = ScriptedProvider::start("p").await;
        let gateway = TestGateway::start(&house(&provider)).await;
        Self { provider, gateway, asked: 0 }
    }

    /// The receipt of `ask`, answered by `script`.
    async fn receipt(&mut self, ask: &Ask, script: Script) -> Arc<Receipt> {
        self.provider.answers(script);
        assert_eq!(ask.at(&self.gateway).await.status, 200);
        self.asked += 1;
        let receipts = self.gateway.receipts(self.asked).await;
        receipts.last().expect("one for each request").clone()
    }
}

/// Three tokens' frames of one byte each, and the end; `usage` in the frames of these places.
fn streamed(usage: &[(usize, Value)]) -> Script {
    let mut script = Script::sse();
    for place in 0..6 {
        let mut frame = match place {
            0..3 => json!({"choices": [{"index": 0, "delta": {"content": "x"}}]}),
            3 => json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
            _ => json!({"choices": []}),
        };
        let said = usage.iter().find(|(at, _)| *at == place).map(|(_, usage)| usage);
        if let Some(usage) = said {
            frame["usage"] = usage.clone();
        }
        if place < 4 || said.is_some() {
            script = script.frame(&frame.to_string());
        }
    }
    script
}

fn count(prompt: u64, completion: u64) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion})
}

#[tokio::test]
async fn what_a_provider_counts_is_charged_wherever_it_says_it() {
    let mut bench = Bench::new().await;
    let ask = Ask::stream("small");
    let mut check = async |usage: &[(usize, Value)], expected: [u64; 4], estimated: bool| {
        let receipt = bench.receipt(&ask, streamed(usage).done()).await;
        let used = receipt.usage.expect("it is known");
        let found = [used.input, used.cached_input, used.output, used.reasoning];
        assert_eq!((found, receipt.estimated), (expected, estimated), "{usage:?}");
        let [input, cached, output, _] = expected.map(u64::cast_signed);
        assert_eq!(receipt.cost.0, (input - cached) * INPUT + cached * CACHED + output * OUTPUT, "{usage:?}");
        assert_eq!(bench.gateway.metric(IMPOSSIBLE), 0.0);
    };
    // With the end, after it, and twice: the last word is the whole.
    check(&[(3, count(30, 10))], [30, 0, 10, 0], false).await;
    check(&[(4, count(30, 10))], [30, 0, 10, 0], false).await;
    check(&[(4, count(30, 10)), (5, count(30, 11))], [30, 0, 11, 0], false).await;
    check(&[(0, count(30, 1)), (1, count(30, 2)), (2, count(30, 3)), (3, count(30, 3))], [30, 0, 3, 0], false).await;
    let detailed = json!({
        "prompt_tokens": 30, "prompt_tokens_details": {"cached_tokens": 20},
        "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 7},
    });
    check(&[(4, detailed)], [30, 20, 10, 7], false).await;
    let odd = json!({
        "prompt_tokens": 30, "prompt_tokens_details": "none",
        "completion_tokens": 10, "completion_tokens_details": [7],
    });
    check(&[(4, odd)], [30, 0, 10, 0], false).await;
    // A count that tokens came after, or without the output, is a floor.
    check(&[(0, count(30, 1))], [30, 0, 3, 0], true).await;
    check(&[(4, json!({"prompt_tokens": 30}))], [30, 0, 3, 0], true).await;
    let guess = ask.body().len().div_ceil(4) as u64;
    check(&[], [guess, 0, 3, 0], true).await;
}

#[tokio::test]
async fn a_stream_that_breaks_is_charged_what_was_counted_and_what_was_seen() {
    let mut bench = Bench::new().await;
    let counted: Vec<_> = (0..3).map(|place| (place, count(30, place as u64))).collect();
    for (frames, output) in [(2, 2), (3, 3)] {
        let script = streamed(&counted).cut_after_frame(frames, Ending::Rst);
        let receipt = bench.receipt(&Ask::stream("small"), script).await;
        assert_eq!(
            (receipt.usage.map(|used| (used.input, used.output)), receipt.estimated),
            (Some((30, output)), true)
        );
    }
}

#[tokio::test]
async fn what_cannot_be_a_count_is_estimated_and_alarmed() {
    let mut bench = Bench::new().await;
    let whole = |usage: &Value| {
        let choices = json!([{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]);
        Script::status(200).json(&json!({"choices": choices, "usage": usage}))
    };
    let mut alarms = 0.0;
    for usage in [
        json!({"prompt_tokens": -30, "completion_tokens": 10}),
        json!({"prompt_tokens": 30, "completion_tokens": -10}),
        json!({"prompt_tokens": 30, "completion_tokens": 10.5}),
        json!({"prompt_tokens": 30, "completion_tokens": "10"}),
        json!({"prompt_tokens": 30, "completion_tokens": 1_000_000_001_u64}),
        json!({"prompt_tokens": 30, "completion_tokens": u64::MAX}),
        json!([30, 10]),
    ] {
        for (ask, script, output) in
            [(Ask::chat("small"), whole(&usage), 5), (Ask::stream("small"), streamed(&[(4, usage.clone())]).done(), 3)]
        {
            let receipt = bench.receipt(&ask, script).await;
            let used = receipt.usage.map(|used| (used.input, used.output));
            assert_eq!(used, Some((ask.body().len().div_ceil(4) as u64, output)), "{usage}");
            alarms += 1.0;
            assert_eq!((receipt.estimated, bench.gateway.metric(IMPOSSIBLE)), (true, alarms), "{usage}");
        }
    }
}

#[tokio::test]
async fn an_estimate_is_measured_by_what_the_models_answers_were_counted_at() {
    let mut bench = Bench::new().await;
    let text = "four".repeat(100);
    let counted = |text: &str, frames, completion| {
        let usage = Usage { completion, ..Usage::default() };
        chat(Chat { text: text.to_owned(), frames, usage, ..Chat::default() })
    };
    let uncounted = json!({"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]});
    let estimate = async |bench: &mut Bench| {
        let receipt = bench.receipt(&Ask::chat("small"), Script::status(200).json(&uncounted)).await;
        assert!(receipt.estimated);
        receipt.usage.expect("it is estimated").output
    };
    assert_eq!(estimate(&mut bench).await, 400, "a byte to a token, while nothing is known");
    for number in 0..120 {
        let ask = if number % 2 == 0 { Ask::chat("small") } else { Ask::stream("small") };
        bench.receipt(&ask, counted(&text, 7, 100)).await;
    }
    let learned = estimate(&mut bench).await;
    assert!((100..110).contains(&learned), "{learned}");
    // Neither an estimate nor a reload teaches anything.
    bench.gateway.reload(&house(&bench.provider));
    assert_eq!(estimate(&mut bench).await, learned);
    // Denser text is believed at once.
    bench.receipt(&Ask::stream("small"), counted(&text, 7, 200)).await;
    assert_eq!(estimate(&mut bench).await, 200);
}
