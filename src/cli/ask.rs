//! `tierway ask`: one question to a model through a running gateway, as any client asks it.
//!
//! It exists to try a gateway, a key or a model without writing a program. The answer goes to stdout as it comes,
//! everything else to stderr; an answer that breaks off is never taken for a whole one.
//!
//! Start reading at [`ask`].

use super::client_target::{ClientArgs, unanswered};
use super::printable;
use super::store::CommandError;
use crate::config::Snapshot;
use crate::protocol::sse::SseReader;
use bytes::Bytes;
use clap::Args;
use http::{Method, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

/// The longest frame, and the longest whole answer, that is read, in bytes.
const MOST: usize = 16 << 20;
/// The longest question that is read from stdin, in bytes.
const PROMPT_MOST: u64 = 16 << 20;

const EXAMPLES: &str = "\
Exit codes: 0 the answer is whole; 1 it is not, or there is none; 2 wrong usage; 78 the configuration is invalid.

Examples:
  tierway ask Why is the sky blue?              # with OPENAI_BASE_URL and OPENAI_API_KEY, as `serve` prints them
  tierway ask --model premium --headers Hi      # who served it, after how many attempts, for how much
  git diff | tierway ask --system 'Write a commit message for this change.'
  tierway ask --url https://gateway.example --key tw_... --json Hi";

/// Arguments of `ask`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct AskArgs {
    /// The question [default: what stdin has]
    prompt: Vec<String>,
    /// A model or alias [default: the configuration's first alias, else its first model]
    #[arg(long, short, value_name = "NAME")]
    model: Option<String>,
    /// What the model is told before the question
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The most tokens that the answer may have
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// Show the answer's status and headers, on stderr
    #[arg(long)]
    headers: bool,
    /// Print the answer as JSON, whole, as it came
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gateway: ClientArgs,
}

/// Asks, and shows the answer.
///
/// # Errors
/// Only what the system refuses.
pub(super) fn ask(args: &AskArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(answer(args)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => error.print(),
    }
}

async fn answer(args: &AskArgs) -> Result<(), CommandError> {
    let target = args.gateway.target()?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => example_model(&args.gateway.configuration()?, target.is_named)?,
    };
    let body = Bytes::from(request(args, model, prompt(args)?).to_string());
    let path = format!("{}/chat/completions", target.prefix);
    let sent = target.client.send(Method::POST, &path, Some(body)).await;
    let answer = sent.map_err(|error| unanswered(&target.client.url, &error))?;
    if args.headers {
        show_headers(&answer).map_err(CommandError::failed)?;
    }
    if !answer.status().is_success() {
        return Err(refused(answer).await);
    }
    if args.json {
        let body = whole(answer).await?;
        return super::print(&format!("{}\n", String::from_utf8_lossy(&body).trim_end())).map_err(CommandError::failed);
    }
    show_stream(answer.into_body()).await
}

fn example_model(snapshot: &Snapshot, elsewhere: bool) -> Result<String, CommandError> {
    let model = snapshot.table.example_model().ok_or_else(|| CommandError::usage("no model is configured"));
    model
        .map(ToString::to_string)
        .map_err(|error| if elsewhere { CommandError::usage("--model says which model to ask") } else { error })
}

/// The words of the command line, or else all of stdin.
fn prompt(args: &AskArgs) -> Result<String, CommandError> {
    if !args.prompt.is_empty() {
        return Ok(args.prompt.join(" "));
    }
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return Err(CommandError::usage("there is no question\n  help: tierway ask Why is the sky blue?"));
    }
    let mut text = String::new();
    stdin.lock().take(PROMPT_MOST).read_to_string(&mut text).map_err(CommandError::failed)?;
    if text.trim().is_empty() {
        return Err(CommandError::usage("stdin has no question"));
    }
    Ok(text)
}

fn request(args: &AskArgs, model: String, prompt: String) -> Value {
    let message = |role: &str, content: &str| json!({ "role": role, "content": content });
    let system = args.system.as_deref().map(|system| message("system", system));
    let messages: Vec<_> = system.into_iter().chain([message("user", &prompt)]).collect();
    let mut request = json!({ "model": model, "messages": messages, "stream": !args.json });
    if let Some(most) = args.max_tokens {
        request["max_tokens"] = most.into();
    }
    request
}

fn show_headers(answer: &Response<Incoming>) -> io::Result<()> {
    let mut text = format!("{:?} {}\n", answer.version(), answer.status());
    for (name, value) in answer.headers() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    writeln!(io::stderr().lock(), "{}", printable(&text))
}

async fn whole(answer: Response<Incoming>) -> Result<Bytes, CommandError> {
    let body = Limited::new(answer.into_body(), MOST).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| CommandError::failed(format!("the answer broke off: {error}")))
}

/// What the gateway says of a request that it does not serve.
async fn refused(answer: Response<Incoming>) -> CommandError {
    let status = answer.status();
    let request_id = answer.headers().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let body = whole(answer).await.unwrap_or_default();
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = said["error"]["message"].as_str().unwrap_or("without an error of its own");
    let code = said["error"]["code"].as_str().map_or(String::new(), |code| format!(" {code}"));
    let help = request_id.map_or(String::new(), |id| format!("\n  help: tierway explain --request {id}"));
    CommandError::failed(format!("{status}{code}: {message}{help}"))
}

/// Writes the text of a stream to stdout as it comes.
async fn show_stream(mut body: Incoming) -> Result<(), CommandError> {
    let mut reader = SseReader::new(MOST);
    let mut shown = Shown::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| shown.broken(&error.to_string()))?;
        let Ok(chunk) = frame.into_data() else { continue };
        reader.push(chunk);
        while let Some(frame) = reader.next_frame().map_err(|error| shown.broken(&error.to_string()))? {
            let Some(event) = frame.event() else { continue };
            if event.payload.trim_ascii() == b"[DONE]" {
                return shown.end();
            }
            let event: Value =
                serde_json::from_slice(event.payload).map_err(|error| shown.broken(&error.to_string()))?;
            if let Some(message) = event["error"]["message"].as_str() {
                return Err(shown.broken(message));
            }
            shown.show(&event["choices"][0])?;
        }
    }
    Err(shown.broken("it has no end"))
}

/// What was shown of an answer.
#[derive(Default)]
struct Shown {
    /// Whether something was, and whether its last character began a new line.
    text: Option<char>,
    finish_reason: Option<String>,
}

impl Shown {
    fn show(&mut self, choice: &Value) -> Result<(), CommandError> {
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
        let delta = &choice["delta"];
        let parts = [&delta["content"], &delta["refusal"]];
        for text in parts.into_iter().filter_map(Value::as_str).filter(|text| !text.is_empty()) {
            self.text = text.chars().last();
            let mut out = io::stdout().lock();
            match write!(out, "{}", printable(text)).and_then(|()| out.flush()) {
                // Whoever reads it has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => written.map_err(CommandError::failed)?,
            }
        }
        Ok(())
    }

    /// Whoever reads the terminal finds what comes next on a line of its own.
    fn new_line(&self) {
        if self.text.is_some_and(|last| last != '\n') {
            // As above: nobody reads on.
            let _ = writeln!(io::stdout());
        }
    }

    fn end(&self) -> Result<(), CommandError> {
        self.new_line();
        match self.finish_reason.as_deref() {
            Some("stop") => {}
            Some(reason) => super::context::note(&format!("note: the answer ends with finish_reason {reason}")),
            None => return Err(CommandError::failed("the answer has no finish_reason: it may not be whole")),
        }
        Ok(())
    }

    fn broken(&self, why: &str) -> CommandError {
        self.new_line();
        CommandError::failed(format!("the answer broke off: {why}"))
    }
}
