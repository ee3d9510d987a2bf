//! What each dialect counts as input and output, and what that costs: rows that were computed by hand, whole and streamed.
//!
//! Chat and Responses count what was read from the cache within the input, Messages beside it; what was written to it is
//! beside the input of Messages, too, for minutes or an hour, and within that of Responses; reasoning is always within the
//! output. `tests/sdk/test_genai_prices.py` compares with what others make of the same answers. Start reading at
//! [`every_row_costs_what_it_should`].

use crate::support::gateway::{ALLOW_ALL, provider_table};
use crate::support::{BodyEnd, Script, ScriptedProvider, TestDialect, TestGateway};
use serde_json::{Value, json};

/// For a million tokens, with other prices for all tokens of a request whose input is above a thousand, and a tenth of a
/// cent for each request. A dollar for a million tokens is a thousand nano-dollars for one.
const PRICE: &str = r#"price = { input = "1", cached_input = "0.1", cache_write = "2", cache_write_1h = "3", output = "10", request = "0.001", above = [{ tokens = 1000, input = "5", cached_input = "0.5", cache_write = "7", cache_write_1h = "11", output = "20" }] }"#;

/// One row: what the provider says, and what is counted and charged.
struct Row {
    dialect: TestDialect,
    usage: Value,
    /// Input, cached input, output and reasoning.
    counted: [u64; 4],
    nanousd: i64,
}

fn row(dialect: TestDialect, usage: Value, counted: [u64; 4], nanousd: i64) -> Row {
    Row { dialect, usage, counted, nanousd }
}

/// What was written to the cache for minutes and for an hour.
fn written(short: u64, long: u64) -> Value {
    json!({"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long})
}

fn rows_of_one_price() -> Vec<Row> {
    use TestDialect::{Chat, Messages, Responses};
    vec![
        // 20 at $1, 300 at $0.10, 50 at $10, and the request.
        row(
            Chat,
            json!({"prompt_tokens": 320, "completion_tokens": 50, "total_tokens": 370, "prompt_tokens_details": {"cached_tokens": 300}, "completion_tokens_details": {"reasoning_tokens": 45}}),
            [320, 300, 50, 45],
            20_000 + 30_000 + 500_000 + 1_000_000,
        ),
        row(
            Responses,
            json!({"input_tokens": 320, "input_tokens_details": {"cached_tokens": 300}, "output_tokens": 50, "output_tokens_details": {"reasoning_tokens": 45}, "total_tokens": 370}),
            [320, 300, 50, 45],
            20_000 + 30_000 + 500_000 + 1_000_000,
        ),
        row(
            Messages,
            json!({"input_tokens": 20, "cache_read_input_tokens": 300, "output_tokens": 50, "output_tokens_details": {"thinking_tokens": 45}}),
            [320, 300, 50, 45],
            20_000 + 30_000 + 500_000 + 1_000_000,
        ),
        // 10 at $1, 100 at $0.10, 50 written at $2, 1 at $10.
        row(
            Responses,
            json!({"input_tokens": 160, "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 50}, "output_tokens": 1}),
            [160, 100, 1, 0],
            10_000 + 10_000 + 100_000 + 10_000 + 1_000_000,
        ),
        // The same with 30 of them for minutes and 20 for an hour at $3.
        row(
            Messages,
            json!({"input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 50, "cache_creation": written(30, 20), "output_tokens": 1}),
            [160, 100, 1, 0],
            10_000 + 10_000 + 60_000 + 60_000 + 10_000 + 1_000_000,
        ),
        // Written for a time that is not said: for minutes.
        row(
            Messages,
            json!({"input_tokens": 0, "cache_creation_input_tokens": 40, "output_tokens": 2}),
            [40, 0, 2, 0],
            80_000 + 20_000 + 1_000_000,
        ),
    ]
}

fn rows_beside_a_threshold() -> Vec<Row> {
    use TestDialect::{Chat, Messages, Responses};
    vec![
        // A thousand tokens of input are not above a thousand: 1 at $1, 999 at $0.10, 3 at $10.
        row(
            Messages,
            json!({"input_tokens": 1, "cache_read_input_tokens": 999, "output_tokens": 3}),
            [1000, 999, 3, 0],
            1_000 + 99_900 + 30_000 + 1_000_000,
        ),
        // One more is: 1 at $5, 1,000 at $0.50, 3 at $20. What was read from the cache counts, wherever it is written.
        row(
            Messages,
            json!({"input_tokens": 1, "cache_read_input_tokens": 1000, "output_tokens": 3}),
            [1001, 1000, 3, 0],
            5_000 + 500_000 + 60_000 + 1_000_000,
        ),
        row(
            Responses,
            json!({"input_tokens": 1001, "input_tokens_details": {"cached_tokens": 1000}, "output_tokens": 3}),
            [1001, 1000, 3, 0],
            5_000 + 500_000 + 60_000 + 1_000_000,
        ),
        row(
            Chat,
            json!({"prompt_tokens": 1001, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1000}}),
            [1001, 1000, 3, 0],
            5_000 + 500_000 + 60_000 + 1_000_000,
        ),
        // Written tokens lift it above, too: 1 at $5, 600 at $7 and 400 at $11, 1 at $20.
        row(
            Messages,
            json!({"input_tokens": 1, "cache_creation_input_tokens": 1000, "cache_creation": written(600, 400), "output_tokens": 1}),
            [1001, 0, 1, 0],
            5_000 + 4_200_000 + 4_400_000 + 20_000 + 1_000_000,
        ),
    ]
}

/// An answer with this usage; of a stream of Messages the input comes first and the output last.
fn answer(row: &Row, stream: bool) -> Script {
    let usage = row.usage.to_string();
    let plain = row.dialect.whole("Hi");
    let without = plain.split(",\"usage\":").next().unwrap_or_default().trim_end_matches('}');
    let whole = match row.dialect {
        TestDialect::Chat => format!("{},\"usage\":{usage}}}", plain.trim_end().strip_suffix('}').expect("an object")),
        _ => format!("{without},\"usage\":{usage}}}"),
    };
    if !stream {
        return Script::status(200).header("content-type", "application/json").body(whole);
    }
    let mut frames = row.dialect.frames("Hi");
    match row.dialect {
        TestDialect::Chat => frames.insert(frames.len() - 1, format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\n")),
        TestDialect::Responses => {
            let last = frames.last_mut().expect("a stream has events");
            let begin = last.split("\"response\":").next().expect("a beginning");
            *last = format!("{begin}\"response\":{whole}}}\n\n");
        }
        TestDialect::Messages => {
            let mut begun = row.usage.clone();
            begun["output_tokens"] = json!(1);
            begun.as_object_mut().expect("an object").remove("output_tokens_details");
            frames[0] = format!(
                "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"id\":\"msg_1\",\"content\":[],\"usage\":{begun}}}}}\n\n"
            );
            let at = frames.len() - 2;
            let mut ended = json!({"output_tokens": row.usage["output_tokens"]});
            if let Some(details) = row.usage.get("output_tokens_details") {
                ended["output_tokens_details"] = details.clone();
            }
            frames[at] = format!(
                "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}},\"usage\":{ended}}}\n\n"
            );
        }
    }
    frames.into_iter().fold(Script::sse(), Script::body)
}

#[tokio::test]
async fn every_row_costs_what_it_should() {
    for (number, row) in rows_of_one_price().into_iter().chain(rows_beside_a_threshold()).enumerate() {
        let provider = ScriptedProvider::start("eu").await;
        let protocol = format!("\"{}\"", row.dialect.protocol());
        let table = provider_table("eu", &provider, "eu").replace("\"openai\"", &protocol);
        let served = row.dialect.served();
        let gateway = TestGateway::start(&format!(
            "{table}[models.m]\n{PRICE}\n{served}deployments = [{{ provider = \"eu\" }}]\n{ALLOW_ALL}"
        ))
        .await;
        for stream in [false, true] {
            provider.answers(answer(&row, stream));
            let asked = gateway.post(row.dialect.path(), &[], &row.dialect.body("m", stream, "")).await;
            assert_eq!((asked.status, asked.end), (200, BodyEnd::Clean), "row {number}: {asked:?}");
        }
        for receipt in gateway.receipts(2).await {
            let used = receipt.usage.expect("it was counted");
            let case = format!("row {number}, {:?}, stream: {}, {}", row.dialect, receipt.stream, row.usage);
            assert_eq!([used.input, used.cached_input, used.output, used.reasoning], row.counted, "{case}");
            assert_eq!((receipt.cost.0, receipt.estimated), (row.nanousd, false), "{case}");
        }
    }
}
