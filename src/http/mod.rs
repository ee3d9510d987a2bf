//! The front door: every route on one page.
//!
//! It turns HTTP into a [`RawRequest`](crate::relay::RawRequest) and the corridor's answer into HTTP.
//! It never imports a store or an upstream, and it decides nothing about who may ask or where a
//! request goes; the only thing it refuses by itself is what no corridor would want to know of.
//!
//! Start reading at [`public_entry`], then [`server`] for connections and [`error`] for THE table.

pub mod admin;
pub mod connection;
pub mod egress;
pub mod ending;
pub mod error;
pub mod ingress;
pub mod layers;
pub mod lifecycle;
pub mod openai;
pub mod ops;
pub mod response_body;
pub mod server;
pub mod tls;
pub mod upload;

use crate::admin::Admin;
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
use error::ApiError;
use layers::EntryPoint;
use lifecycle::Lifecycle;
use openai::{chat, models};
use ops::OpsAccess;
use std::sync::Arc;
use upload::Held;

/// Everything a handler may reach. Built once, in `cli`.
pub struct App {
    /// The corridor.
    pub relay: Arc<Relay>,
    /// What operators do.
    pub admin: Admin,
    /// Where everything is seen.
    pub telemetry: Arc<Telemetry>,
    /// Whether we are open.
    pub lifecycle: Lifecycle,
    /// What operators must present; a reload stores another.
    pub ops: ArcSwap<OpsAccess>,
    /// The request bodies held at the moment.
    pub held: Arc<Held>,
    /// The one source of time.
    pub clock: Clock,
    /// The one place of chance: requests are named with it.
    pub rng: Arc<Rng>,
}

/// What a path and a method ask of the corridor.
#[derive(Clone, Copy, Debug)]
pub enum Route {
    /// A routed call.
    Endpoint(Endpoint),
    /// Nothing we serve.
    UnknownUrl,
    /// Something we serve by other methods.
    WrongMethod {
        /// Those.
        allow: &'static str,
    },
}

impl Route {
    /// In which dialect it is answered.
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Endpoint(endpoint) => endpoint.dialect(),
            Self::UnknownUrl | Self::WrongMethod { .. } => Dialect::default(),
        }
    }
}

/// What clients reach; `with_ops` where operators have no address of their own.
pub fn public_entry(app: Arc<App>, with_ops: bool) -> EntryPoint {
    let (clock, rng) = (app.clock, app.rng.clone());
    let v1 = Router::new()
        .route("/v1/chat/completions", routed(Endpoint::Chat))
        .route("/v1/completions", routed(Endpoint::Completions))
        .route("/v1/embeddings", routed(Endpoint::Embeddings))
        .route("/v1/models", wrong_method("GET, HEAD").get(models::list))
        .route("/v1/models/{*id}", wrong_method("GET, HEAD").get(models::retrieve));
    let router = if with_ops {
        v1.merge(ops::routes()).merge(admin::routes()).fallback(elsewhere)
    } else {
        v1.fallback(without_operators)
    };
    EntryPoint::new(router.with_state(app), clock, rng)
}

/// What operators reach at an address of their own: everything but `/v1`.
pub fn ops_entry(app: Arc<App>) -> EntryPoint {
    let (clock, rng) = (app.clock, app.rng.clone());
    let router = ops::routes().merge(admin::routes()).fallback(without_clients);
    EntryPoint::new(router.with_state(app), clock, rng)
}

fn routed(endpoint: Endpoint) -> MethodRouter<Arc<App>> {
    let route = Route::Endpoint(endpoint);
    wrong_method("POST").post(move |State(app), request: Request| chat::serve(app, route, request))
}

/// Whatever method no handler is added for: refused in the corridor, so that nobody without a key
/// learns what exists. `any`, unlike a fallback, adds no `Allow` of its own, which would tell.
fn wrong_method(allow: &'static str) -> MethodRouter<Arc<App>> {
    let route = Route::WrongMethod { allow };
    any(move |State(app), request: Request| chat::serve(app, route, request))
}

/// Whatever no route takes, where clients and operators come.
async fn elsewhere(State(app): State<Arc<App>>, request: Request) -> Response {
    if admin::is_below(request.uri().path()) {
        without_clients(State(app), request).await
    } else {
        without_operators(State(app), request).await
    }
}

/// Whatever no route takes, where clients come: below `/v1` the corridor refuses it, after asking for a key.
async fn without_operators(State(app): State<Arc<App>>, request: Request) -> Response {
    let path = request.uri().path();
    if path == "/v1" || path.starts_with("/v1/") {
        chat::serve(app, Route::UnknownUrl, request).await
    } else {
        nowhere(&request)
    }
}

/// Whatever no route takes, where operators come: below `/admin` after asking for a token.
async fn without_clients(State(app): State<Arc<App>>, request: Request) -> Response {
    if admin::is_below(request.uri().path()) { admin::unknown(app, request).await } else { nowhere(&request) }
}

fn nowhere(request: &Request) -> Response {
    ApiError::refused(&Refusal::UnknownUrl { path: request.uri().path().into() }).response()
}
