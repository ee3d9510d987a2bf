//! Requests about a response or a conversation that this host keeps.
//!
//! Start reading in [`NetworkProvider::open_stored`].

use super::NetworkProvider;
use crate::domain::stored_response::StoredRequest;
use crate::protocol::Grammar;
use crate::upstream::providers::UpstreamReply;
use crate::upstream::{AttemptError, UpstreamRequest};
use http::Method;
use percent_encoding::percent_decode_str;
use reqwest::{Request, Url};
use std::time::Instant;

impl NetworkProvider {
    /// Sends what `request` asks of what is stored and waits for the head of the reply.
    pub(super) async fn open_stored(
        &self,
        request: &UpstreamRequest<'_>,
        stored: &StoredRequest,
        now: Instant,
    ) -> Result<UpstreamReply, AttemptError> {
        let method = Method::from_bytes(stored.action.method().as_bytes()).unwrap_or_default();
        let call = request.call;
        let url = self.fields.url(&url_of(&self.urls[call.endpoint() as usize], stored), request.fields);
        let mut http_request = Request::new(method, url);
        *http_request.headers_mut() = self.headers(request);
        if !call.body().is_empty() {
            *http_request.body_mut() = Some(call.body().clone().into());
        }
        let grammar = Grammar::answering(call.endpoint(), self.quirks);
        self.execute(http_request, grammar, now, request.draw).await
    }
}

/// Where it lies below `all` responses or conversations, with the parameters that may be passed on, as they came.
fn url_of(all: &Url, stored: &StoredRequest) -> Url {
    let mut url = all.clone();
    // Each id in it is one plain segment: `is_possible_id`.
    url.set_path(&format!("{}{}", all.path(), stored.path()));
    let passes = |pair: &&str| {
        let name = percent_decode_str(pair.split('=').next().unwrap_or_default()).decode_utf8_lossy();
        // What the configured address says is the operator's word.
        let is_taken = all.query_pairs().any(|(taken, _)| taken == name);
        stored.action.parameters().contains(&&*name) && !is_taken
    };
    let given = stored.query.as_deref().unwrap_or_default().split('&').filter(passes);
    let query: Vec<&str> = all.query().into_iter().chain(given).collect();
    url.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stored_response::StoredRequestKind;

    #[test]
    fn a_response_lies_below_the_base_url_and_only_known_parameters_pass() {
        let check = |base: &str, action: StoredRequestKind, query: Option<&str>, expected: &str| {
            let item = action.names_item().then(|| "msg_1".into());
            let query = query.map(Into::into);
            let request = StoredRequest { action, id: "resp_1:a=.b".into(), item, query, stream: false };
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
        let base = "https://a.example/v1/conversations";
        let at = "https://a.example/v1/conversations/resp_1:a=.b";
        let all = Some("after=a&limit=2&order=asc&include[]=b&before=c&model=d&starting_after=1");
        check(base, StoredRequestKind::ListItems, all, &format!("{at}/items?after=a&limit=2&order=asc&include[]=b"));
        check(base, StoredRequestKind::AddItems, all, &format!("{at}/items?include[]=b"));
        check(base, StoredRequestKind::RetrieveItem, all, &format!("{at}/items/msg_1?include[]=b"));
        check(base, StoredRequestKind::DeleteItem, all, &format!("{at}/items/msg_1"));
        check(base, StoredRequestKind::UpdateConversation, all, at);
    }
}
