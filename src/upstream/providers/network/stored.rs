//! Requests about a response that this host keeps.
//!
//! Start reading in [`NetworkProvider::open_stored`].

use super::NetworkProvider;
use crate::domain::call::Endpoint;
use crate::domain::stored_response::StoredRequest;
use crate::protocol::Grammar;
use crate::upstream::providers::UpstreamReply;
use crate::upstream::{AttemptError, UpstreamRequest};
use http::Method;
use http::header::CONTENT_TYPE;
use percent_encoding::percent_decode_str;
use reqwest::{Request, Url};
use std::time::Instant;

impl NetworkProvider {
    /// Sends what `request` asks of a stored response and waits for the head of the reply.
    pub(super) async fn open_stored(
        &self,
        request: &UpstreamRequest<'_>,
        stored: &StoredRequest,
        now: Instant,
    ) -> Result<UpstreamReply, AttemptError> {
        let method = Method::from_bytes(stored.action.method().as_bytes()).unwrap_or_default();
        let url = self.fields.url(&url_of(&self.urls[Endpoint::Responses as usize], stored), request.fields);
        let mut http_request = Request::new(method, url);
        *http_request.headers_mut() = self.headers(request);
        http_request.headers_mut().remove(CONTENT_TYPE);
        let grammar = Grammar::answering(Endpoint::StoredResponses, self.quirks);
        self.execute(http_request, grammar, now, request.draw).await
    }
}

/// Where the response lies below `responses`, with the parameters that may be passed on, as they came.
fn url_of(responses: &Url, stored: &StoredRequest) -> Url {
    let mut url = responses.clone();
    // The id is one plain segment: `StoredRequest::has_possible_id`.
    url.set_path(&format!("{}/{}{}", responses.path(), stored.id, stored.action.path_end()));
    let passes = |pair: &&str| {
        let name = percent_decode_str(pair.split('=').next().unwrap_or_default()).decode_utf8_lossy();
        // What the configured address says is the operator's word.
        let is_taken = responses.query_pairs().any(|(taken, _)| taken == name);
        stored.action.parameters().contains(&&*name) && !is_taken
    };
    let given = stored.query.as_deref().unwrap_or_default().split('&').filter(passes);
    let all: Vec<&str> = responses.query().into_iter().chain(given).collect();
    url.set_query((!all.is_empty()).then(|| all.join("&")).as_deref());
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stored_response::StoredRequestKind;

    #[test]
    fn a_response_lies_below_the_base_url_and_only_known_parameters_pass() {
        let check = |base: &str, action: StoredRequestKind, query: Option<&str>, expected: &str| {
            let request =
                StoredRequest { action, id: "resp_1:a=.b".into(), query: query.map(Into::into), stream: false };
            let url = url_of(&Url::parse(base).expect("the case is a URL"), &request);
            assert_eq!(url.as_str(), expected);
        };
        let base = "https://a.example/v1/responses";
        let at = "https://a.example/v1/responses/resp_1:a=.b";
        check(base, StoredRequestKind::Retrieve, None, at);
        check(base, StoredRequestKind::Delete, Some("include=x"), at);
        check(base, StoredRequestKind::Cancel, None, &format!("{at}/cancel"));
        check(
            base,
            StoredRequestKind::Retrieve,
            Some("include%5B%5D=a.b&include[]=c&stream=true&starting_after=7&key=tw_x&api-version=2"),
            &format!("{at}?include%5B%5D=a.b&include[]=c&stream=true&starting_after=7"),
        );
        check(
            &format!("{base}?api-version=1&limit=3"),
            StoredRequestKind::InputItems,
            Some("limit=9&order=asc&&after=msg_1&x"),
            &format!("{at}/input_items?api-version=1&limit=3&order=asc&after=msg_1"),
        );
    }
}
