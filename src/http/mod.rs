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
pub mod egress;
pub mod ending;
pub mod error;
pub mod headers;
pub mod ingress;
pub mod models;
pub mod ops;
pub mod request_handler;
pub mod upload;

use crate::admin::AdminOperations;
use crate::clock::Clock;
use crate::domain::call::Endpoint;
use crate::domain::refusal::Refusal;
use crate::protocol::Dialect;
use crate::random::Rng;
use crate::relay::Relay;
use crate::telemetry::Telemetry;
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{MethodRouter, any};
use conn::connection::Connection;
use conn::lifecycle::Lifecycle;
use egress::ResponseContext;
use error::ApiError;
use ops::OperatorTokens;
use request_handler::RequestHandler;
use std::sync::Arc;
use upload::InFlightBytes;

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
    /// The bytes of all request bodies in memory.
    pub in_flight_bytes: Arc<InFlightBytes>,
    /// The source of time.
    pub clock: Clock,
    /// The source of randomness, for request ids.
    pub rng: Arc<Rng>,
}

/// What a path and a method ask for.
#[derive(Clone, Copy, Debug)]
pub enum Route {
    /// A call to a model.
    Endpoint(Endpoint),
    /// A path that does not exist.
    UnknownUrl,
    /// A path that exists for other methods.
    WrongMethod {
        /// The value of the `allow` header.
        allow: &'static str,
    },
}

impl Route {
    /// The dialect that answers are written in.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Endpoint(endpoint) => endpoint.dialect(),
            Self::UnknownUrl | Self::WrongMethod { .. } => Dialect::default(),
        }
    }
}

/// The routes at the public address; with those for operators too if `with_ops`.
pub fn public_handler(app: Arc<AppState>, with_ops: bool) -> RequestHandler {
    let (clock, rng) = (app.clock, app.rng.clone());
    let v1 = Router::new()
        .route("/v1/chat/completions", routed(Endpoint::Chat))
        .route("/v1/completions", routed(Endpoint::Completions))
        .route("/v1/embeddings", routed(Endpoint::Embeddings))
        .route("/v1/models", wrong_method("GET, HEAD").get(models::list))
        .route("/v1/models/{*id}", wrong_method("GET, HEAD").get(models::retrieve));
    let router = if with_ops {
        v1.merge(ops::routes()).merge(admin::routes()).fallback(unknown_path)
    } else {
        v1.fallback(unknown_client_path)
    };
    RequestHandler::new(router.with_state(app), clock, rng)
}

/// The routes at the operators' own address: everything but `/v1`.
pub fn ops_handler(app: Arc<AppState>) -> RequestHandler {
    let (clock, rng) = (app.clock, app.rng.clone());
    let router = ops::routes().merge(admin::routes()).fallback(unknown_operator_path);
    RequestHandler::new(router.with_state(app), clock, rng)
}

/// Every request on `/v1` but the list of models, also one without a route: it is read, served and answered.
async fn serve(app: Arc<AppState>, route: Route, request: Request) -> Response {
    let in_flight = app.telemetry.metrics.request_started();
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    let raw = ingress::read(&app, route, request);
    let result = app.relay.serve(raw).await;
    egress::answer(result, ResponseContext { app: &app, dialect: route.dialect(), connection, in_flight })
}

fn routed(endpoint: Endpoint) -> MethodRouter<Arc<AppState>> {
    let route = Route::Endpoint(endpoint);
    wrong_method("POST").post(move |State(app), request: Request| serve(app, route, request))
}

/// Methods without a route: refused by the relay after it has checked the key, so that nobody without
/// one learns which paths exist. Unlike a fallback, `any` adds no `allow` header, which would show that.
fn wrong_method(allow: &'static str) -> MethodRouter<Arc<AppState>> {
    let route = Route::WrongMethod { allow };
    any(move |State(app), request: Request| serve(app, route, request))
}

/// A path without a route, at an address for clients and operators.
async fn unknown_path(State(app): State<Arc<AppState>>, request: Request) -> Response {
    if admin::is_below(request.uri().path()) {
        unknown_operator_path(State(app), request).await
    } else {
        unknown_client_path(State(app), request).await
    }
}

/// A path without a route, at an address for clients: below `/v1` the relay refuses it after it has
/// checked the key.
async fn unknown_client_path(State(app): State<Arc<AppState>>, request: Request) -> Response {
    let path = request.uri().path();
    if path == "/v1" || path.starts_with("/v1/") {
        serve(app, Route::UnknownUrl, request).await
    } else {
        not_found(&request)
    }
}

/// A path without a route, at an address for operators: below `/admin` the token is checked first.
async fn unknown_operator_path(State(app): State<Arc<AppState>>, request: Request) -> Response {
    if admin::is_below(request.uri().path()) { admin::not_found(app, request).await } else { not_found(&request) }
}

fn not_found(request: &Request) -> Response {
    ApiError::refused(&Refusal::UnknownUrl { path: request.uri().path().into() }).response()
}
