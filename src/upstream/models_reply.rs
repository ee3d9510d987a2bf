//! What a provider replies when it is asked for its models with one of our credentials.
//!
//! Operators ask it before they serve; no request of a client comes here. What a provider says is masked like any other
//! sentence of one.
//!
//! Start reading at [`ask`].

use super::AttemptError;
use super::held::HeldAnswer;
use super::providers::{UpstreamProvider, UpstreamReply};
use crate::clock::Clock;
use crate::domain::memory::InFlightAllowance;
use http::HeaderMap;
use http::header::DATE;
use std::time::{Duration, UNIX_EPOCH};

/// How long a provider may take, body included.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest list that is read, in bytes: some hosts have thousands of models.
const MAX_LIST: usize = 16 * 1024 * 1024;

/// A provider's reply, or why there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelsReply {
    /// The status of the reply; `None` if none came.
    pub status: Option<u16>,
    /// The names it listed; `None` where the reply is no list of models.
    pub models: Option<Vec<String>>,
    /// What the provider says, masked, or what went wrong on the way.
    pub said: Option<Box<str>>,
    /// The Unix second that the provider's clock shows, where the reply says it.
    pub date_unix_s: Option<i64>,
    /// From the question to the end of the reply.
    pub elapsed: Duration,
}

/// Asks `provider` with its credential numbered `credential`, or without one if it has none; `None` if it is simulated.
pub(super) async fn ask(provider: &UpstreamProvider, credential: usize, clock: Clock) -> Option<ModelsReply> {
    let start = clock.now();
    let reply = async {
        match provider.list_models(credential, start).await? {
            Ok(reply) => Some(read(reply, clock).await),
            Err(error) => Some(unanswered(error, None)),
        }
    };
    let reply = tokio::select! {
        reply = reply => reply?,
        () = clock.sleep(PATIENCE) => {
            let said = format!("no answer within {} s", PATIENCE.as_secs());
            ModelsReply { status: None, models: None, said: Some(said.into()), date_unix_s: None, elapsed: PATIENCE }
        }
    };
    Some(ModelsReply { elapsed: clock.now() - start, ..reply })
}

async fn read(mut reply: UpstreamReply, clock: Clock) -> ModelsReply {
    if let Err(error) = reply.undo_codings() {
        return unanswered(error, Some(reply.status.as_u16()));
    }
    let UpstreamReply { status, mut source, grammar, headers } = reply;
    let mut held = HeldAnswer::none(&InFlightAllowance::default());
    let body = match source.collect(MAX_LIST, &mut held, clock, &mut || {}).await {
        Ok(body) => body,
        Err(error) => return unanswered(error, Some(status.as_u16())),
    };
    let (models, said) = if status.is_success() {
        let models = grammar.listed_models(&body);
        let no_list = || "the answer is no list of models: is this the base URL of its API?".into();
        let said = models.is_none().then(no_list);
        (models, said)
    } else {
        (None, grammar.read_error(&body).sentence)
    };
    let date_unix_s = date_unix_s(&headers);
    ModelsReply { status: Some(status.as_u16()), models, said, date_unix_s, elapsed: Duration::ZERO }
}

fn date_unix_s(headers: &HeaderMap) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

fn unanswered(error: AttemptError, status: Option<u16>) -> ModelsReply {
    ModelsReply { status, models: None, said: Some(error.detail), date_unix_s: None, elapsed: Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Act, Scripted, upstreams, whole};
    use super::*;
    use crate::domain::id::ProviderId;
    use async_compression::tokio::write::GzipEncoder;
    use tokio::io::AsyncWriteExt;

    async fn asked(answer: Vec<Act>) -> (ModelsReply, String) {
        let mut provider = Scripted::start([vec![Act::Read], answer].concat()).await;
        let reply = upstreams(provider.base_url()).list_models(ProviderId(0), 0).await.expect("it has a network");
        (reply, provider.request().await)
    }

    #[tokio::test]
    async fn a_list_is_asked_for_with_the_credential() {
        let list = r#"{"object":"list","data":[{"id":"b"},{"id":"a/c"}]}"#;
        let (reply, request) = asked(vec![Act::Write(whole("application/json", list))]).await;
        assert_eq!((reply.status, reply.models, reply.said), (Some(200), Some(vec!["b".into(), "a/c".into()]), None));
        assert!(request.starts_with("GET /v1/models HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: Bearer secret\r\n"), "{request}");
    }

    #[tokio::test]
    async fn a_list_is_read_whatever_it_is_encoded_in() {
        let mut gzip = GzipEncoder::new(Vec::new());
        gzip.write_all(br#"{"data":[{"id":"a"}]}"#).await.expect("a Vec takes everything");
        gzip.shutdown().await.expect("a Vec takes everything");
        let body = gzip.into_inner();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
        let (reply, _) = asked(vec![Act::Write([head.into_bytes(), body].concat())]).await;
        assert_eq!((reply.status, reply.models), (Some(200), Some(vec!["a".into()])));
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_never_ends_its_answer_is_not_waited_for() {
        let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec();
        for answer in [vec![Act::Hold], vec![Act::Write(begun), Act::Hold]] {
            let provider = Scripted::start([vec![Act::Read], answer].concat()).await;
            let reply = upstreams(provider.base_url()).list_models(ProviderId(0), 0).await.expect("it has a network");
            assert!(reply.models.is_none() && reply.elapsed <= PATIENCE, "{reply:?}");
            assert!(reply.said.is_some_and(|said| !said.is_empty()));
        }
    }

    #[tokio::test]
    async fn what_a_provider_says_is_masked() {
        let refused = "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\nconnection: close\r\n\
                       date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n\
                       {\"error\":{\"message\":\"Incorrect API key provided: sk-abcdefgh12345678\"}}";
        let (reply, _) = asked(vec![Act::Write(refused.into()), Act::Close]).await;
        assert_eq!((reply.status, reply.models, reply.date_unix_s), (Some(401), None, Some(784_111_777)));
        let said = reply.said.expect("the provider said something");
        assert!(said.starts_with("Incorrect API key provided") && !said.contains("12345678"), "{said}");
    }

    #[tokio::test]
    async fn what_is_no_list_is_said() {
        let (reply, _) = asked(vec![Act::Write(whole("text/html", "<html>Welcome</html>"))]).await;
        assert_eq!((reply.status, reply.models), (Some(200), None));
        assert!(reply.said.expect("a sentence").contains("no list of models"));
    }
}
