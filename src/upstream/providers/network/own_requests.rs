//! What operators ask a host, without a client: its models, and whether it has an endpoint.
//!
//! Start reading in [`NetworkProvider::list_models`].

use super::NetworkProvider;
use crate::domain::call::Endpoint;
use crate::domain::random::RandomValue;
use crate::protocol::Grammar;
use crate::upstream::providers::UpstreamReply;
use crate::upstream::{AttemptError, ForwardedFields, HostProtocol};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Method};
use reqwest::{Request, Url};
use std::time::Instant;

impl NetworkProvider {
    /// Asks for the models and waits for the head of the reply.
    pub(in crate::upstream::providers) async fn list_models(
        &self,
        credential: usize,
        now: Instant,
    ) -> Result<UpstreamReply, AttemptError> {
        let http_request = self.own_request(Method::GET, &self.models, credential);
        let endpoint = match self.api {
            HostProtocol::OpenAi => Endpoint::Chat,
            HostProtocol::Anthropic => Endpoint::Messages,
        };
        let grammar = Grammar::answering(endpoint, self.quirks);
        self.execute(http_request, grammar, now, RandomValue(0)).await
    }

    /// Asks `endpoint` with an object that lacks all that it needs, and waits for the head of the reply.
    pub(in crate::upstream::providers) async fn ask_endpoint(
        &self,
        endpoint: Endpoint,
        credential: usize,
        now: Instant,
    ) -> Result<UpstreamReply, AttemptError> {
        let mut http_request = self.own_request(Method::POST, &self.urls[endpoint as usize], credential);
        http_request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *http_request.body_mut() = Some("{}".into());
        self.execute(http_request, Grammar::answering(endpoint, self.quirks), now, RandomValue(0)).await
    }

    /// A request of our own, without a body.
    fn own_request(&self, method: Method, url: &Url, credential: usize) -> Request {
        let mut http_request = Request::new(method, url.clone());
        let headers = http_request.headers_mut();
        self.fields.write(ForwardedFields::default(), headers);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        self.api.write_version(headers);
        if let Some(credential) = self.credentials.get(credential) {
            headers.insert(self.api.credential_header(), credential.clone());
        }
        http_request
    }
}
