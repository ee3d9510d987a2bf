//! Bytes of Messages and Responses: everything but the model's name reaches the provider as it was written, and everything
//! of an answer, whole or streamed, reaches the client as it was sent.
//!
//! Chat has the same in `bytes.rs`. Start reading at [`every_byte_passes`].

use crate::bytes::{space, value};
use crate::support::gateway::{ALLOW_ALL, BEARER, provider_table};
use crate::support::{Script, ScriptedProvider, TestDialect, TestGateway};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;

/// Every case is reproducible from it.
const SEED: [u8; 32] = *b"dialects keep every byte of both";
const CASES: u32 = 400;

/// What a model is asked for by, in JSON, and what its provider reads.
const NAMES: [(&str, &str); 4] = [
    (r#""m""#, r#""up-stream""#),
    (r#""\u006d""#, r#""up-stream""#),
    // Their provider calls it the same: nothing is edited, but for escapes that nobody needs.
    (r#""same""#, r#""same""#),
    (r#""s\u0061me""#, r#""same""#),
];

/// One exchange: a request in pieces, and the answer to it.
#[derive(Clone, Debug)]
struct Exchange {
    name: (&'static str, &'static str),
    /// Whitespace around the object, and within it.
    spaces: [String; 4],
    before: Vec<String>,
    after: Vec<String>,
    stream: bool,
    /// Members of each object of the answer that nobody here knows.
    unknown: Vec<String>,
    /// Between the events of a stream, and how each is written.
    between: Vec<(String, usize)>,
}

impl Exchange {
    fn request(&self, dialect: TestDialect, name: &str) -> String {
        let [lead, a, b, tail] = &self.spaces;
        let required = match dialect {
            TestDialect::Messages => format!("{a}\"max_tokens\"{b}:{a}64,\"messages\":{b}[{a}]"),
            _ => format!("\"inp\\u0075t\"{a}:{b}[{a}]"),
        };
        let members: Vec<String> = self
            .before
            .iter()
            .cloned()
            .chain([format!("{a}\"model\"{b}:{a}{name}{b}"), required, format!("\"stream\":{b}{}", self.stream)])
            .chain(self.after.iter().cloned())
            .collect();
        format!("{lead}{{{}{tail}}}{tail}", members.join(","))
    }

    fn unknown(&self) -> String {
        self.unknown.iter().map(|member| format!(",{member}")).collect()
    }

    /// A whole answer with all kinds of JSON in it.
    fn whole(&self, dialect: TestDialect) -> String {
        let [lead, _, _, tail] = &self.spaces;
        let plain = dialect.whole("H\u{e9}\"\n");
        let inside = plain.strip_suffix('}').expect("an answer is an object");
        format!("{lead}{inside}{}}}{tail}", self.unknown())
    }

    /// A stream with events, comments and fields that nobody here knows, in several ways to write them.
    fn streamed(&self, dialect: TestDialect) -> String {
        // A line feed ends a line of `data`.
        let unknown = self.unknown().replace(['\n', '\r'], " ");
        let mut stream = String::new();
        let mut between = self.between.iter().cycle();
        for event in dialect.frames("H\u{e9}\"\n") {
            let (beside, style) = between.next().cloned().unwrap_or_default();
            let data = event.split_once("data: ").expect("every event has data").1.trim_end();
            let name =
                event.strip_prefix("event: ").expect("every event has a name").split_once('\n').expect("a line").0;
            let data = format!("{}{unknown}}}", data.strip_suffix('}').expect("data are objects"));
            stream += match style % 5 {
                0 => format!("event: {name}\ndata: {data}\n\n"),
                1 => format!("event:{name}\ndata:{data}\n\n"),
                2 => format!("event: {name}\r\ndata: {data}\r\n\r\n"),
                3 => format!("id: 1\nevent: {name}\nretry: 5\ndata: {data}\n\n"),
                _ => format!("data: {data}\nevent: {name}\n\n"),
            }
            .as_str();
            // Behind its end a host says nothing more.
            if name != dialect.last_event() {
                let member = self.unknown.first().map_or(r#""x":1"#, String::as_str).replace(['\n', '\r'], " ");
                stream += &beside.replace("VALUE", &member);
            }
        }
        stream
    }
}

/// Members that the gateway does not read, some of them twice.
fn members() -> impl Strategy<Value = Vec<String>> {
    let key = prop_oneof![
        "x_[a-z]{0,4}".prop_map(|key| format!("\"{key}\"")),
        Just(r#""temper\u0061ture""#.to_owned()),
        Just(r#""model_name""#.to_owned()),
        Just(r#""\ud83d\ude00é""#.to_owned()),
        Just(r#""service_tier""#.to_owned()),
    ];
    let member = (space(), key, space(), space(), value(), space())
        .prop_map(|(a, key, b, c, value, d)| format!("{a}{key}{b}:{c}{value}{d}"));
    prop::collection::vec(member, 0..4)
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let beside = prop::sample::select(vec![
        "",
        ": a comment\n\n",
        "event: x.unknown\ndata: {\"type\":\"x.unknown\",VALUE}\n\n",
        "event: ping\ndata: {\"type\": \"ping\" }\n\n",
        ":\r\n\r\n",
    ]);
    let between = prop::collection::vec((beside.prop_map(str::to_owned), 0..5_usize), 1..9);
    let spaces = (space(), space(), space(), space()).prop_map(|(a, b, c, d)| [a, b, c, d]);
    let name = prop::sample::select(NAMES.to_vec());
    let members = (members(), members(), members());
    (name, spaces, members, any::<bool>(), between).prop_map(
        |(name, spaces, (before, after, unknown), stream, between)| Exchange {
            name,
            spaces,
            before,
            after,
            stream,
            unknown,
            between,
        },
    )
}

async fn start(dialect: TestDialect) -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("eu").await;
    let table = provider_table("eu", &provider, "eu").replace("\"openai\"", &format!("\"{}\"", dialect.protocol()));
    let (served, breaker) = (dialect.served(), "breaker = { failures = 1000000, min_requests = 1000000 }");
    let config = format!(
        "{table}[models.m]\n{served}deployments = [{{ provider = \"eu\", upstream_model = \"up-stream\" }}]\n\
         [models.same]\n{served}deployments = [{{ provider = \"eu\" }}]\n{ALLOW_ALL}[routing]\n{breaker}\n"
    );
    (TestGateway::start(&config).await, provider)
}

fn every_byte_passes(dialect: TestDialect) {
    let runtime = tokio::runtime::Runtime::new().expect("the system gives threads");
    let (gateway, provider, client) = runtime.block_on(async {
        let (gateway, provider) = start(dialect).await;
        let client = RefCell::new(gateway.connect().await);
        (gateway, provider, client)
    });
    println!("seed {SEED:?}");
    let cases = Cases { cases: CASES, failure_persistence: None, ..Cases::default() };
    let mut runner = TestRunner::new_with_rng(cases, TestRng::from_seed(RngAlgorithm::ChaCha, &SEED));
    let checked = runner.run(&exchange(), |exchange| {
        let mut client = client.borrow_mut();
        provider.clear();
        let sent = exchange.request(dialect, exchange.name.0);
        let answer = if exchange.stream { exchange.streamed(dialect) } else { exchange.whole(dialect) };
        let script = if exchange.stream {
            Script::sse()
        } else {
            Script::status(200).header("content-type", "application/json")
        };
        provider.answers(script.body(answer.clone()));
        let response = runtime.block_on(async {
            client.post(dialect.path(), &[("authorization", BEARER)], &sent).await;
            client.response().await
        });
        prop_assert_eq!(response.status, 200, "{}: {:?}", sent, response);
        let journal = provider.journal();
        let received = String::from_utf8_lossy(&journal.only().request.body).into_owned();
        prop_assert_eq!(received, exchange.request(dialect, exchange.name.1));
        prop_assert_eq!(response.text(), answer);
        Ok(())
    });
    runtime.block_on(async move { drop(gateway) });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn every_byte_of_messages_passes() {
    every_byte_passes(TestDialect::Messages);
}

#[test]
fn every_byte_of_responses_passes() {
    every_byte_passes(TestDialect::Responses);
}
