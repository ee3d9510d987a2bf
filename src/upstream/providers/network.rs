//! Every host on the network, with OpenAI's API or Anthropic's; where hosts differ, the difference is a value of
//! [`NetworkSetup`], not code.
//!
//! It sends the client's bytes with the model's name in place and nothing of the client's identity:
//! of headers only those of the request, the configured ones, and the ones written here.

mod own_requests;
mod stored;

use super::fields::{HostFields, sensitive};
use super::{OwnMembers, ReplySource, UpstreamReply, unanswered};
use crate::domain::call::Endpoint;
use crate::domain::random::RandomValue;
use crate::domain::secret::Secret;
use crate::protocol::chat::answer::ChatQuirks;
use crate::protocol::json::edit::EditedBody;
use crate::protocol::{Grammar, messages};
use crate::upstream::client::{ClientTls, ConnectionOptions, ConnectionPool};
use crate::upstream::echoed_secrets::ProviderSecrets;
use crate::upstream::{AttemptError, BuildError, HostProtocol, NetworkSetup, ProviderSetup, UpstreamRequest};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use reqwest::{Proxy, Request, Url};
use std::sync::Arc;
use std::time::Instant;

/// How many headers are written besides the client's and the configured ones, by us and by what sends them.
const OTHER_HEADERS: usize = 6;

/// One host.
pub(super) struct NetworkProvider {
    pool: ConnectionPool,
    /// By position in [`Endpoint::ON_RECEIPTS`].
    urls: [Url; Endpoint::ON_RECEIPTS.len()],
    models: Url,
    api: HostProtocol,
    /// Whole values of the header that presents them.
    credentials: Vec<HeaderValue>,
    /// What is masked where it is sent back.
    secrets: Option<Arc<ProviderSecrets>>,
    fields: HostFields,
    quirks: ChatQuirks,
}

impl NetworkProvider {
    /// Parses every URL once.
    pub(super) fn build(provider: &ProviderSetup, setup: &NetworkSetup, tls: &ClientTls) -> Result<Self, BuildError> {
        let base = base_url(&setup.base_url)
            .map(|base| setup.api.versioned(base))
            .map_err(|problem| BuildError::BaseUrl { provider: provider.name.clone(), problem })?;
        let options = ConnectionOptions {
            tls: base.scheme() == "https",
            http2: setup.http2,
            connect_timeout: provider.connect_timeout,
            proxy: setup.connection.proxy.as_ref().map(|url| proxy(url, provider)).transpose()?,
        };
        let tls = tls.of(setup.connection.authorities.as_deref())?;
        let pool = ConnectionPool::build(options, tls).map_err(|error| BuildError::Client {
            provider: provider.name.clone(),
            problem: error.without_url().to_string(),
        })?;
        let unfit = || BuildError::Credential { provider: provider.name.clone() };
        let credentials = setup.credentials.iter().map(|credential| setup.api.presented(credential).ok_or_else(unfit));
        let fields =
            HostFields::of(&setup.fields).ok_or_else(|| BuildError::Header { provider: provider.name.clone() })?;
        Ok(Self {
            pool,
            api: setup.api,
            urls: Endpoint::ON_RECEIPTS.map(|endpoint| url_of(&base, endpoint.path())),
            models: url_of(&base, "/models"),
            credentials: credentials.collect::<Result<_, _>>()?,
            secrets: ProviderSecrets::of(setup),
            fields,
            quirks: setup.quirks(),
        })
    }

    /// Sends `request` with `own` and waits for the head of the reply.
    pub(super) async fn open(
        &self,
        request: &UpstreamRequest<'_>,
        own: OwnMembers,
        now: Instant,
    ) -> Result<UpstreamReply, AttemptError> {
        if let Some(stored) = request.call.stored() {
            return self.open_stored(request, stored, now).await;
        }
        let url = self.fields.url(&self.urls[request.call.endpoint() as usize], request.fields);
        let mut http_request = Request::new(Method::POST, url);
        *http_request.headers_mut() = self.headers(request);
        let grammar = Grammar::answering(request.call.answered_as(), self.quirks);
        let ceiling = request.ceiling.map(|tokens| {
            let name = grammar.ceiling_name(request.call);
            (if own.other_ceiling_name { name.other() } else { name }, tokens)
        });
        let body = grammar.write_request(request.call, request.model.json(), own.ask_usage, ceiling);
        *http_request.body_mut() = Some(request_body(body));
        self.execute(http_request, grammar, now, request.draw).await
    }

    async fn execute(
        &self,
        http_request: Request,
        grammar: Grammar,
        now: Instant,
        draw: RandomValue,
    ) -> Result<UpstreamReply, AttemptError> {
        let client = self.pool.client(now, draw);
        let response = client.execute(http_request).await.map_err(|error| unanswered(&error))?;
        let (mut head, body) = http::Response::<reqwest::Body>::from(response).into_parts();
        if let Some(secrets) = &self.secrets {
            secrets.mask_headers(&mut head.headers);
        }
        Ok(UpstreamReply {
            status: head.status,
            headers: head.headers,
            source: ReplySource::network(body).without(self.secrets.clone()),
            grammar,
        })
    }

    fn headers(&self, request: &UpstreamRequest<'_>) -> HeaderMap {
        let accept = if request.call.metadata().stream { "text/event-stream" } else { "application/json" };
        let mut headers = HeaderMap::with_capacity(request.headers.len() + self.fields.len() + OTHER_HEADERS);
        headers.extend(request.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        self.fields.write(request.fields, &mut headers);
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static(accept));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        match request.call.body().is_empty() {
            true => headers.remove(CONTENT_TYPE),
            false => headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json")),
        };
        self.api.write_version(&mut headers);
        match self.credentials.get(request.credential) {
            Some(credential) => headers.insert(self.api.credential_header(), credential.clone()),
            // The client's own, if any.
            None if self.api == HostProtocol::OpenAi => headers.remove(AUTHORIZATION),
            None => None,
        };
        headers
    }
}

impl HostProtocol {
    fn credential_header(self) -> HeaderName {
        match self {
            Self::OpenAi => AUTHORIZATION,
            Self::Anthropic => HeaderName::from_static("x-api-key"),
        }
    }

    /// The value of that header for `credential`; `None` where it holds what no header can.
    fn presented(self, credential: &Secret) -> Option<HeaderValue> {
        match self {
            Self::OpenAi => sensitive(&format!("Bearer {}", credential.expose())),
            Self::Anthropic => sensitive(credential.expose()),
        }
    }

    /// Writes the version of the API that every request must have, where the client did not.
    fn write_version(self, headers: &mut HeaderMap) {
        match self {
            Self::OpenAi => {}
            Self::Anthropic => {
                let version = HeaderName::from_static(messages::VERSION_HEADER);
                headers.entry(version).or_insert(HeaderValue::from_static(messages::USUAL_VERSION));
            }
        }
    }

    /// `base` with the version that the paths of endpoints follow: Anthropic's own clients take it without.
    fn versioned(self, mut base: Url) -> Url {
        let path = base.path().trim_end_matches('/');
        if self == Self::Anthropic && !path.ends_with("/v1") {
            let path = format!("{path}/v1");
            base.set_path(&path);
        }
        base
    }
}

/// A body in one piece is sent as such.
fn request_body(body: EditedBody) -> reqwest::Body {
    body.into_single().map_or_else(reqwest::Body::wrap, reqwest::Body::from)
}

/// `text` as a URL to append paths to; the error ends a sentence and does not repeat the URL, which
/// may hold a secret.
fn base_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("must begin with http:// or https://, not {}:", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or password: they would not be sent".into());
    }
    url.as_str().parse::<Uri>().map_err(|error| format!("cannot be requested: {error}"))?;
    Ok(url)
}

fn proxy(url: &Secret, provider: &ProviderSetup) -> Result<Proxy, BuildError> {
    Proxy::all(url.expose()).map_err(|_| BuildError::Proxy { provider: provider.name.clone() })
}

fn url_of(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), path));
    url.set_fragment(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_lies_below_the_base_url() {
        let check = |base: &str, expected: &str| {
            let base = base_url(base).expect("the case is a URL");
            assert_eq!(url_of(&base, Endpoint::Chat.path()).as_str(), expected);
        };
        check("https://a.example/v1", "https://a.example/v1/chat/completions");
        check("https://a.example/v1/", "https://a.example/v1/chat/completions");
        check("http://127.0.0.1:8000", "http://127.0.0.1:8000/chat/completions");
        check("https://a.example/x?api-version=1", "https://a.example/x/chat/completions?api-version=1");
    }

    #[test]
    fn every_endpoint_finds_its_own_url() {
        for (position, endpoint) in Endpoint::ON_RECEIPTS.into_iter().enumerate() {
            assert_eq!(endpoint as usize, position);
        }
    }

    #[test]
    fn what_is_no_base_url_is_refused_without_repeating_it() {
        for text in ["secret", "ftp://secret.example", "https://u:secret@a.example/v1", "https://"] {
            let problem = base_url(text).expect_err(text);
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
