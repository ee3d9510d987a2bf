//! The HTTP layer, with every route in this file.
//!
//! It turns HTTP into a [`RawRequest`](crate::relay::RawRequest) and the relay's answer into HTTP. It
//! never imports a store or an upstream, and it decides neither who may send a request nor where one
//! goes. It refuses by itself only what is for nobody, and operators without a right token.
//!
//! Start reading at [`public_handler`] and [`serve`], then [`conn`] for connections and [`error`] for the table of
//! errors.

pub mod admin;
pub mod conn;
mod cors;
mod dashboard;
pub mod egress;
pub mod ending;
pub mod error;
pub mod headers;
mod host;
pub mod ingress;
pub mod models;
pub mod ops;
mod paths;
pub mod peer_refusals;
pub mod request_handler;
pub mod sessions;
pub mod sla_probe;
mod stored_responses;
pub mod upload;

use crate::admin::AdminOperations;
use crate::clock::Clock;
use crate::config::RefusedConfig;
use crate::domain::call::Endpoint;
use crate::domain::refusal::{KeyRefusal, Refusal, SecretTarget};
use crate::domain::secret::{KeyHash, Secret};
use crate::domain::stored_response::StoredRequestKind;
use crate::protocol::{Dialect, dialect_of_client};
use crate::random::Rng;
use crate::relay::{ErrorReply, Relay, ServeError};
use crate::telemetry::Telemetry;
use arc_swap::{ArcSwap, ArcSwapOption};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, any};
use conn::connection::Connection;
use conn::lifecycle::Lifecycle;
use egress::ResponseContext;
use error::ApiError;
use http::{Extensions, HeaderMap, Uri};
use ops::OperatorTokens;
use peer_refusals::PeerRefusals;
use request_handler::{RequestArrival, RequestHandler};
use sessions::Sessions;
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

/// What the routes share. Built once, in `cli`.
pub struct AppState {
    /// The request path.
    pub relay: Arc<Relay>,
    /// What the admin API does.
    pub admin: AdminOperations,
    /// Metrics and the access log.
    pub telemetry: Arc<Telemetry>,
    /// The process's phase, and what is open in it.
    pub lifecycle: Lifecycle,
    /// What operators authenticate with. A reload replaces it.
    pub ops: ArcSwap<OperatorTokens>,
    /// Browsers that presented one of these.
    pub sessions: Sessions,
    /// Keys and tokens that were refused.
    pub peer_refusals: PeerRefusals,
    /// The changed configuration that was last refused; `None` once one is applied.
    pub refused_config: ArcSwapOption<RefusedConfig>,
    /// The source of time.
    pub clock: Clock,
    /// The source of randomness, for request ids.
    pub rng: Arc<Rng>,
}

impl AppState {
    /// Records that a key or token was refused; returns how long the answer is to wait.
    fn note_refused(&self, connection: Option<&Connection>, target: SecretTarget, why: &KeyRefusal) -> Duration {
        let peer = connection.and_then(Connection::peer);
        self.peer_refusals.note(peer, target, why, &self.telemetry.metrics, self.clock.now())
    }

    /// The same for a token of operators, `presented` with a request; returns when it may be answered.
    async fn refuse_token(&self, target: SecretTarget, presented: Option<&Secret>, extensions: &Extensions) {
        let why = presented.map_or(KeyRefusal::Missing, |token| KeyRefusal::Unknown(KeyHash::of(token.expose())));
        let connection = RequestArrival::connection(extensions).map(|connection| &**connection);
        self.peer_refusals.wait(self.note_refused(connection, target, &why), self.clock).await;
    }
}

/// What a path and a method ask for.
#[derive(Clone, Copy, Debug)]
pub enum Route {
    /// A call to a model.
    Endpoint(Endpoint),
    /// A stored response or a conversation.
    Stored(StoredRequestKind),
    /// A path that does not exist.
    UnknownUrl,
    /// A path that exists for other methods.
    WrongMethod {
        /// The value of the `allow` header.
        allow: &'static str,
    },
}

impl Route {
    /// The dialect that the answer to a request with these `headers` is written in.
    pub fn dialect(self, headers: &HeaderMap) -> Dialect {
        match self {
            Self::Endpoint(endpoint) => endpoint.dialect(),
            Self::Stored(action) => Endpoint::about(action).dialect(),
            Self::UnknownUrl | Self::WrongMethod { .. } => dialect_of_client(|name| headers.contains_key(name)),
        }
    }
}

/// The routes at the public address; with those for operators too if `with_ops`.
pub fn public_handler(app: Arc<AppState>, with_ops: bool) -> RequestHandler {
    let (clock, rng) = (app.clock, app.rng.clone());
    let clients = client_routes();
    // Where a path is served that names one of them in another spelling.
    let exact = clients.clone().with_state(app.clone());
    let unknown = move |state: State<Arc<AppState>>, request: Request| unknown_path(state, request, exact, with_ops);
    // A client without a base URL posts there, and is told what one is.
    let router =
        if with_ops { clients.merge(operator_routes(any(unknown.clone()))) } else { clients }.fallback(unknown);
    RequestHandler::new(router.with_state(app.clone()), clock, rng).for_clients(app)
}

fn client_routes() -> Router<Arc<AppState>> {
    Router::new()
        .route("/v1/chat/completions", endpoint(Endpoint::Chat))
        .route("/v1/completions", endpoint(Endpoint::Completions))
        .route("/v1/embeddings", endpoint(Endpoint::Embeddings))
        .route("/v1/responses", endpoint(Endpoint::Responses))
        .route("/v1/responses/input_tokens", endpoint(Endpoint::InputTokens))
        .route("/v1/conversations", endpoint(Endpoint::Conversations))
        .route("/v1/messages", endpoint(Endpoint::Messages))
        .route("/v1/messages/count_tokens", endpoint(Endpoint::CountTokens))
        .merge(stored_responses::routes())
        .route("/v1/models", wrong_method("GET, HEAD").get(models::list))
        .route("/v1/models/{*id}", wrong_method("GET, HEAD").get(models::retrieve))
}

/// The routes at the operators' own address: everything but `/v1`.
pub fn ops_handler(app: Arc<AppState>) -> RequestHandler {
    let (clock, rng) = (app.clock, app.rng.clone());
    let router = operator_routes(any(unknown_operator_path)).fallback(unknown_operator_path);
    RequestHandler::new(router.with_state(app), clock, rng)
}

/// Health, metrics, the admin API and the dashboard, whose page is at `/`; `root` answers other methods there.
fn operator_routes(root: MethodRouter<Arc<AppState>>) -> Router<Arc<AppState>> {
    ops::routes().merge(admin::routes()).merge(dashboard::routes(root))
}

/// Every request on `/v1` but the list of models, also one without a route: it is read, served and answered.
async fn serve(app: Arc<AppState>, route: Route, arrival: RequestArrival, request: Request) -> Response {
    let in_flight = app.telemetry.metrics.request_started();
    let connection = arrival.connection.clone();
    let dialect = route.dialect(request.headers());
    let raw = ingress::read(&app, route, &arrival, request);
    let result = app.relay.serve(raw).await;
    if let Some(connection) = &connection {
        match &result {
            Ok(reply) => {
                connection.key_accepted();
                connection.answers_within(reply.allowance.clone());
            }
            Err(error_reply) if error_reply.has_key() => connection.key_accepted(),
            Err(_) => {}
        }
    }
    let delay = match &result {
        Err(ErrorReply { error: ServeError::Refused(Refusal::InvalidKey(why)), .. }) => {
            app.note_refused(connection.as_deref(), SecretTarget::Clients, why)
        }
        _ => Duration::ZERO,
    };
    let response = egress::answer(result, ResponseContext { app: &app, dialect, connection, in_flight });
    app.peer_refusals.wait(delay, app.clock).await;
    response
}

/// The same for what came through the router.
async fn serve_routed(app: Arc<AppState>, route: Route, mut request: Request) -> Response {
    let arrival = request.extensions_mut().remove().expect("the handler gives every request one");
    serve(app, route, arrival, request).await
}

/// A call by its exact path was served before the router was asked; here come those of other spellings.
fn endpoint(endpoint: Endpoint) -> MethodRouter<Arc<AppState>> {
    let route = Route::Endpoint(endpoint);
    wrong_method("POST").post(move |State(app), request: Request| serve_routed(app, route, request))
}

/// Methods without a route: refused by the relay after it has checked the key, so that nobody without
/// one learns which paths exist. Unlike a fallback, `any` adds no `allow` header, which would show that.
fn wrong_method(allow: &'static str) -> MethodRouter<Arc<AppState>> {
    let route = Route::WrongMethod { allow };
    any(move |State(app), request: Request| serve_routed(app, route, request))
}

/// A path without a route, at an address for clients and, if `with_ops`, operators. One that names an endpoint in another
/// spelling is served by `exact`; any other one below `/v1` is refused by the relay after it has checked the key.
async fn unknown_path(state: State<Arc<AppState>>, mut request: Request, exact: Router, with_ops: bool) -> Response {
    let path = request.uri().path();
    if with_ops && admin::is_below(path) {
        return unknown_operator_path(state, request).await;
    }
    if let Some(uri) = paths::canonical(path).and_then(|path| with_path(request.uri(), &path)) {
        *request.uri_mut() = uri;
        return exact.oneshot(request).await.unwrap_or_else(|never| match never {});
    }
    if paths::is_of_clients(path) {
        return serve_routed(state.0, Route::UnknownUrl, request).await;
    }
    ApiError::refused(&Refusal::UnknownUrl { path: path.into() }).response()
}

/// `uri` with another path; `None` where that is not one.
fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
    .parse()
    .ok()
}

/// A path without a route, at an address for operators: below `/admin` the token is checked first.
async fn unknown_operator_path(State(app): State<Arc<AppState>>, request: Request) -> Response {
    let path = request.uri().path();
    if admin::is_below(path) { admin::not_found(app, request).await } else { ApiError::unknown_url(path).response() }
}
