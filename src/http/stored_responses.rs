//! `/v1/responses/{id}` and `/v1/conversations/{id}`, and what is below them.
//!
//! It only reads what is asked for; whose the response or the conversation is, and where it is kept, is for `relay`.

use super::paths::{CONVERSATIONS, RESPONSES, parameter};
use super::{AppState, Route, serve_routed, wrong_method};
use crate::domain::stored_response::{StoredRequest, StoredRequestKind};
use axum::Router;
use axum::extract::{Request, State};
use axum::routing::any;
use http::Uri;
use percent_encoding::percent_decode_str;
use std::sync::Arc;

/// What no id is, as it is a path of its own at OpenAI, which is not served.
const COMPACT: &str = "/v1/responses/compact";

/// Its routes.
pub(super) fn routes() -> Router<Arc<AppState>> {
    let to = |action| move |State(app), request: Request| serve_routed(app, Route::Stored(action), request);
    let response =
        wrong_method("GET, HEAD, DELETE").get(to(StoredRequestKind::Retrieve)).delete(to(StoredRequestKind::Delete));
    let conversation = wrong_method("GET, HEAD, POST, DELETE")
        .get(to(StoredRequestKind::RetrieveConversation))
        .post(to(StoredRequestKind::UpdateConversation))
        .delete(to(StoredRequestKind::DeleteConversation));
    let items =
        wrong_method("GET, HEAD, POST").get(to(StoredRequestKind::ListItems)).post(to(StoredRequestKind::AddItems));
    let item = wrong_method("GET, HEAD, DELETE")
        .get(to(StoredRequestKind::RetrieveItem))
        .delete(to(StoredRequestKind::DeleteItem));
    Router::new()
        .route(COMPACT, any(|State(app), request: Request| serve_routed(app, Route::UnknownUrl, request)))
        .route("/v1/responses/{id}", response)
        .route("/v1/responses/{id}/cancel", wrong_method("POST").post(to(StoredRequestKind::Cancel)))
        .route("/v1/responses/{id}/input_items", wrong_method("GET, HEAD").get(to(StoredRequestKind::InputItems)))
        .route("/v1/conversations/{id}", conversation)
        .route("/v1/conversations/{id}/items", items)
        .route("/v1/conversations/{id}/items/{item_id}", item)
}

/// What a request to `uri`, one of these routes, asks for.
pub(super) fn read(action: StoredRequestKind, uri: &Uri) -> StoredRequest {
    let collection = if action.is_of_conversation() { CONVERSATIONS } else { RESPONSES };
    let mut segments = uri.path().split('/').skip_while(|segment| *segment != collection);
    let decoded = |segment: &str| -> Box<str> { percent_decode_str(segment).decode_utf8_lossy().into() };
    let id = decoded(segments.nth(1).unwrap_or_default());
    let item = action.names_item().then(|| decoded(segments.nth(1).unwrap_or_default()));
    let is_true = |value: String| value == "1" || value.eq_ignore_ascii_case("true");
    let stream = action == StoredRequestKind::Retrieve && parameter(uri, "stream").is_some_and(is_true);
    StoredRequest { action, id, item, query: uri.query().map(Into::into), stream }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_decoded_once_and_the_query_stays_as_it_came() {
        let check = |action: StoredRequestKind, uri: &str, id: &str, stream: bool| {
            let uri: Uri = uri.parse().expect("the case is a URI");
            let (id, item) = id.split_once(' ').map_or((id, None), |(id, item)| (id, Some(item.into())));
            let expected = StoredRequest { action, id: id.into(), item, query: uri.query().map(Into::into), stream };
            assert_eq!(read(action, &uri), expected, "{uri}");
        };
        check(StoredRequestKind::Retrieve, "/v1/responses/resp_1", "resp_1", false);
        check(StoredRequestKind::Retrieve, "/v1/responses/resp%5F1?stream=true&starting_after=3", "resp_1", true);
        check(StoredRequestKind::Retrieve, "/v1/responses/a%252fb?stream=True", "a%2fb", true);
        check(StoredRequestKind::Retrieve, "/v1/responses/..%2f..%2ffiles?stream=false", "../../files", false);
        check(StoredRequestKind::InputItems, "/v1/responses/resp_1/input_items?stream=true", "resp_1", false);
        check(StoredRequestKind::Cancel, "/v1/responses/responses/cancel", "responses", false);
        check(StoredRequestKind::ListItems, "/v1/conversations/conv%5F1/items?order=asc&stream=true", "conv_1", false);
        check(
            StoredRequestKind::RetrieveItem,
            "/v1/conversations/conv_1/items/msg%5F1?include=a",
            "conv_1 msg_1",
            false,
        );
        check(StoredRequestKind::DeleteItem, "/v1/conversations/items/items/a%2fb", "items a/b", false);
    }
}
