//! Usage: the usage that a provider reports is charged, wherever it is reported; missing usage is estimated.
//!
//! How a count is read and an estimate is made is tested in `protocol::chat::answer`, `upstream::meter` and
//! `domain::estimate`; these tests cover the receipt and the metrics of the whole path.

use crate::support::gateway::provider_table;
use crate::support::{ChatAnswer, Ending, Script, ScriptedProvider, TestGateway, TestRequest, Usage, chat};
use serde_json::{Value, json};
use std::sync::Arc;
use tierway::domain::receipt::Receipt;

/// Nano-dollars per token: uncached input, cached input, output.
const INPUT: i64 = 1_000;
const CACHED: i64 = 500;
const OUTPUT: i64 = 2_000;
const IMPOSSIBLE: &str = "tierway_answers_with_impossible_usage_total";

fn config(provider: &ScriptedProvider) -> String {
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
        provider_table("p", provider, "p")
    )
}

/// A gateway with one provider, and the number of receipts so far.
struct UsageTest {
    provider: ScriptedProvider,
    gateway: TestGateway,
    asked: u64,
}

impl UsageTest {
    async fn new() -> Self {
        let provider = ScriptedProvider::start("p").await;
        let gateway = TestGateway::start(&config(&provider)).await;
        Self { provider, gateway, asked: 0 }
    }

    /// Sends `request`, which `script` answers, and returns its receipt.
    async fn receipt(&mut self, request: &TestRequest, script: Script) -> Arc<Receipt> {
        self.provider.answers(script);
        assert_eq!(request.send_to(&self.gateway).await.status, 200);
        self.asked += 1;
        let receipts = self.gateway.receipts(self.asked).await;
        receipts.last().expect("one for each request").clone()
    }
}

/// Three frames of one byte of text each, and the end; `usage` gives the frames that report usage.
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
async fn usage_is_charged_wherever_the_provider_reports_it() {
    let mut test = UsageTest::new().await;
    let request = TestRequest::stream("small");
    let mut check = async |usage: &[(usize, Value)], expected: [u64; 4], estimated: bool| {
        let receipt = test.receipt(&request, streamed(usage).done()).await;
        let used = receipt.usage.expect("it is known");
        let found = [used.input, used.cached_input, used.output, used.reasoning];
        assert_eq!((found, receipt.estimated), (expected, estimated), "{usage:?}");
        let [input, cached, output, _] = expected.map(u64::cast_signed);
        assert_eq!(receipt.cost.0, (input - cached) * INPUT + cached * CACHED + output * OUTPUT, "{usage:?}");
        assert_eq!(test.gateway.metric(IMPOSSIBLE), 0.0);
    };
    // With the end, after it, and twice: the last report counts.
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
    // A report that is followed by tokens, or that lacks the output, is a lower bound.
    check(&[(0, count(30, 1))], [30, 0, 3, 0], true).await;
    check(&[(4, json!({"prompt_tokens": 30}))], [30, 0, 3, 0], true).await;
    let guess = request.body().len().div_ceil(4) as u64;
    check(&[], [guess, 0, 3, 0], true).await;
    // Zeros beside text are no count, and take no count's place.
    check(&[(4, count(0, 0))], [guess, 0, 3, 0], true).await;
    check(&[(4, count(30, 0))], [30, 0, 3, 0], true).await;
    check(&[(4, count(30, 10)), (5, count(0, 0))], [30, 0, 10, 0], false).await;
    check(&[(4, count(30, 10)), (5, count(30, 0))], [30, 0, 10, 0], false).await;
    let by_the_total = json!({"prompt_tokens": 30, "completion_tokens": 10, "total_tokens": 90});
    check(&[(4, by_the_total)], [30, 0, 60, 50], false).await;
    // Parts that another report does not repeat.
    let cached = json!({"prompt_tokens": 30, "completion_tokens": 10, "cached_tokens": 20});
    check(&[(4, cached), (5, count(30, 10))], [30, 20, 10, 0], false).await;
}

#[tokio::test]
async fn cached_input_costs_less_under_every_known_name_and_place() {
    let mut test = UsageTest::new().await;
    for name in [
        "cached_tokens",
        "prompt_cache_hit_tokens",
        "num_cached_tokens",
        "cache_read_input_tokens",
        "cached_prompt_text_tokens",
        "cachedContentTokenCount",
    ] {
        let plain = json!({"prompt_tokens": 30, "completion_tokens": 10, name: 20});
        let detailed = json!({"prompt_tokens": 30, "completion_tokens": 10, "input_tokens_details": {name: 20}});
        for usage in [plain, detailed] {
            let choice = |what: &str| json!({"index": 0, what: {"content": "x"}, "finish_reason": "stop"});
            let (delta, message) = (choice("delta"), choice("message"));
            let within = |mut choice: Value| {
                choice["usage"] = usage.clone();
                json!({"choices": [choice]})
            };
            let beside = |choice: &Value| json!({"choices": [choice], "usage": &usage});
            for (request, body) in [
                (TestRequest::stream("small"), beside(&delta)),
                (TestRequest::stream("small"), within(delta.clone())),
                (TestRequest::chat("small"), beside(&message)),
                (TestRequest::chat("small"), within(message.clone())),
            ] {
                let streams = body["choices"][0]["delta"].is_object();
                let script = match streams {
                    true => Script::sse().frame(&body.to_string()).done(),
                    false => Script::status(200).json(&body),
                };
                let receipt = test.receipt(&request, script).await;
                let used = receipt.usage.map(|used| (used.input, used.cached_input, used.output));
                assert_eq!((used, receipt.estimated), (Some((30, 20, 10)), false), "{body}");
                assert_eq!(receipt.cost.0, 10 * INPUT + 20 * CACHED + 10 * OUTPUT, "{body}");
            }
        }
    }
}

#[tokio::test]
async fn usage_in_a_choice_or_beside_it_is_charged() {
    let mut test = UsageTest::new().await;
    let token = json!({"choices": [{"index": 0, "delta": {"content": "x"}}]}).to_string();
    let stop = |usage: Value| json!({"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage});
    for last in [
        json!({"choices": [stop(count(30, 10))]}),
        json!({"choices": [stop(Value::Null)], "x_groq": {"id": "r", "usage": count(30, 10)}}),
    ] {
        let script = Script::sse().frame(&token).frame(&last.to_string()).done();
        let receipt = test.receipt(&TestRequest::stream("small"), script).await;
        assert_eq!(receipt.usage.map(|used| (used.input, used.output)), Some((30, 10)), "{last}");
        assert!(!receipt.estimated);
    }
    let message = json!({"index": 0, "message": {"content": "x"}, "finish_reason": "stop", "usage": count(30, 10)});
    let script = Script::status(200).json(&json!({"choices": [message]}));
    let receipt = test.receipt(&TestRequest::chat("small"), script).await;
    assert_eq!(receipt.usage.map(|used| (used.input, used.output)), Some((30, 10)));
    // Zeros where usage belongs, and the count in the choice.
    let message = json!({"index": 0, "message": {"content": "x"}, "finish_reason": "stop", "usage": count(30, 10)});
    let script = Script::status(200).json(&json!({"choices": [message], "usage": count(0, 0)}));
    let receipt = test.receipt(&TestRequest::chat("small"), script).await;
    assert_eq!(receipt.usage.map(|used| (used.input, used.output)), Some((30, 10)));
    assert!(!receipt.estimated);
    // Zeros beside the text of a whole answer.
    let message = json!({"index": 0, "message": {"content": "four"}, "finish_reason": "stop"});
    let script = Script::status(200).json(&json!({"choices": [message], "usage": count(0, 0)}));
    let request = TestRequest::chat("small");
    let receipt = test.receipt(&request, script).await;
    let guess = request.body().len().div_ceil(4) as u64;
    assert_eq!((receipt.usage.map(|used| (used.input, used.output)), receipt.estimated), (Some((guess, 4)), true));
}

#[tokio::test]
async fn a_broken_stream_is_charged_its_reported_and_received_tokens() {
    let mut test = UsageTest::new().await;
    let counted: Vec<_> = (0..3).map(|place| (place, count(30, place as u64))).collect();
    for (frames, output) in [(2, 2), (3, 3)] {
        let script = streamed(&counted).cut_after_frame(frames, Ending::Rst);
        let receipt = test.receipt(&TestRequest::stream("small"), script).await;
        assert_eq!(
            (receipt.usage.map(|used| (used.input, used.output)), receipt.estimated),
            (Some((30, output)), true)
        );
    }
}

#[tokio::test]
async fn an_impossible_count_is_replaced_by_an_estimate_and_counted() {
    let mut test = UsageTest::new().await;
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
        for (request, script, output) in [
            (TestRequest::chat("small"), whole(&usage), 5),
            (TestRequest::stream("small"), streamed(&[(4, usage.clone())]).done(), 3),
        ] {
            let receipt = test.receipt(&request, script).await;
            let used = receipt.usage.map(|used| (used.input, used.output));
            assert_eq!(used, Some((request.body().len().div_ceil(4) as u64, output)), "{usage}");
            alarms += 1.0;
            assert_eq!((receipt.estimated, test.gateway.metric(IMPOSSIBLE)), (true, alarms), "{usage}");
        }
    }
}

#[tokio::test]
async fn an_estimate_follows_the_usage_reported_for_earlier_answers() {
    let mut test = UsageTest::new().await;
    let text = "four".repeat(100);
    let counted = |text: &str, frames, completion| {
        let usage = Usage { completion, ..Usage::default() };
        chat(ChatAnswer { text: text.to_owned(), frames, usage, ..ChatAnswer::default() })
    };
    let uncounted = json!({"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]});
    let estimate = async |test: &mut UsageTest| {
        let receipt = test.receipt(&TestRequest::chat("small"), Script::status(200).json(&uncounted)).await;
        assert!(receipt.estimated);
        receipt.usage.expect("it is estimated").output
    };
    assert_eq!(estimate(&mut test).await, 400, "a byte to a token, while nothing is known");
    for number in 0..120 {
        let request = if number % 2 == 0 { TestRequest::chat("small") } else { TestRequest::stream("small") };
        test.receipt(&request, counted(&text, 7, 100)).await;
    }
    let learned = estimate(&mut test).await;
    assert!((100..110).contains(&learned), "{learned}");
    // Neither an estimate nor a reload changes the ratio.
    test.gateway.reload(&config(&test.provider));
    assert_eq!(estimate(&mut test).await, learned);
    // A higher ratio of tokens to bytes applies at once.
    test.receipt(&TestRequest::stream("small"), counted(&text, 7, 200)).await;
    assert_eq!(estimate(&mut test).await, 200);
}
