//! Endpoints for monitoring: liveness, readiness, metrics.
//!
//! Health endpoints need no token and disclose nothing about clients. Metrics need one, unless the configuration opens
//! them. These requests are not recorded in the ledger.
//!
//! Start reading at [`routes`].

use super::AppState;
use super::error::ApiError;
use super::ingress;
use super::paths::HEALTH;
use crate::config::MetricsAccess;
use crate::domain::refusal::{Refusal, SecretTarget};
use crate::domain::secret::{KeyHash, Secret};
use crate::telemetry::metrics;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The tokens of operators.
#[derive(Default, Debug)]
pub struct OperatorTokens {
    /// Whether `/metrics` needs a token.
    pub metrics: MetricsAccess,
    /// For `/metrics` alone.
    pub metrics_token: Option<Secret>,
    /// For everything, including changes.
    pub admin_token: Option<Secret>,
    /// For reading everything.
    pub viewer_token: Option<Secret>,
}

/// What an operator's token allows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TokenRole {
    /// Reading everything.
    Viewer,
    /// Reading and changing everything.
    Operator,
}

impl TokenRole {
    /// The word for it in documents and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }
}

impl OperatorTokens {
    /// Whether `presented` may read metrics.
    fn may_read_metrics(&self, presented: Option<&Secret>) -> bool {
        let own = presented.zip(self.metrics_token.as_ref()).is_some_and(|(a, b)| same(a, b));
        own | self.role(presented).is_some() | (self.metrics == MetricsAccess::Open)
    }

    /// The role of `presented`; `None` if it is no operator's token.
    pub fn role(&self, presented: Option<&Secret>) -> Option<TokenRole> {
        self.role_of_hash(KeyHash::of(presented?.expose()))
    }

    /// The same for the token with this hash.
    pub fn role_of_hash(&self, presented: KeyHash) -> Option<TokenRole> {
        let is = |token: &Option<Secret>| {
            // Compared in constant time.
            token.as_ref().is_some_and(|token| KeyHash::of(token.expose()) == presented)
        };
        // Both are compared in any case, so that the time taken does not depend on which one matches.
        match (is(&self.admin_token), is(&self.viewer_token)) {
            (true, _) => Some(TokenRole::Operator),
            (false, true) => Some(TokenRole::Viewer),
            (false, false) => None,
        }
    }
}

/// Whether both are the same; the time taken depends on neither content nor length.
fn same(a: &Secret, b: &Secret) -> bool {
    Sha256::digest(a.expose()).ct_eq(&Sha256::digest(b.expose())).into()
}

/// Health, readiness and metrics.
pub fn routes() -> Router<Arc<AppState>> {
    let [healthz, livez, readyz] = HEALTH;
    Router::new()
        .route(healthz, read_only(get(alive)))
        .route(livez, read_only(get(alive)))
        .route(readyz, read_only(get(ready)))
        .route("/metrics", read_only(get(read_metrics)))
}

/// GET and HEAD; any other method is refused with an error of the API.
pub(super) fn read_only(route: MethodRouter<Arc<AppState>>) -> MethodRouter<Arc<AppState>> {
    route.fallback(async || ApiError::refused(&Refusal::MethodNotAllowed { allow: "GET, HEAD" }).response())
}

async fn alive() -> Response {
    status(StatusCode::OK, "alive")
}

/// Whether requests can be served. Settings that are accepted and not yet enforced are listed, and whether limits are
/// divided that are to be counted together.
async fn ready(State(app): State<Arc<AppState>>) -> Response {
    if !app.lifecycle.is_ready() {
        return status(StatusCode::SERVICE_UNAVAILABLE, "shutting down");
    }
    if !app.relay.ledger_is_healthy() {
        return status(StatusCode::SERVICE_UNAVAILABLE, "the ledger cannot be written");
    }
    let active = app.relay.active_config();
    let unenforced: Vec<&str> = active.snapshot.unenforced.iter().map(|one| one.setting.as_ref()).collect();
    let degraded = app.relay.limits_are_degraded();
    if unenforced.is_empty() && !degraded {
        return status(StatusCode::OK, "ready");
    }
    let mut body = serde_json::json!({ "status": "ready" });
    if !unenforced.is_empty() {
        body["not_yet_enforced"] = unenforced.into();
    }
    if degraded {
        body["limits"] = "degraded".into();
    }
    let body = format!("{body}\n");
    (StatusCode::OK, [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}

async fn read_metrics(State(app): State<Arc<AppState>>, request: Request) -> Response {
    let presented = match ingress::key(request.headers()) {
        Ok(presented) => presented,
        Err(refusal) => return ApiError::refused(&refusal).response(),
    };
    if !app.ops.load().may_read_metrics(presented.as_ref()) {
        app.refuse_token(SecretTarget::Metrics, presented.as_ref(), request.extensions()).await;
        return ApiError::no_metrics_token().response();
    }
    app.relay.publish_states();
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], app.telemetry.metrics.render()).into_response()
}

fn status(status: StatusCode, text: &'static str) -> Response {
    let body = format!("{{\"status\":\"{text}\"}}\n");
    (status, [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_need_a_token_unless_they_are_open() {
        let secret = |text: &str| Some(Secret::new(text));
        let check = |token: Option<&str>, presented: Option<&str>, expected: bool| {
            for metrics in [MetricsAccess::Token, MetricsAccess::Open] {
                let (metrics_token, admin_token) = (token.and_then(secret), secret("admin"));
                let access = OperatorTokens { metrics, metrics_token, admin_token, viewer_token: secret("v") };
                let read = access.may_read_metrics(presented.and_then(secret).as_ref());
                assert_eq!(read, expected || metrics == MetricsAccess::Open, "{metrics:?} {token:?} {presented:?}");
            }
        };
        check(None, None, false);
        check(None, Some("admin"), true);
        check(None, Some("v"), true);
        check(Some("m"), None, false);
        check(Some("m"), Some("m"), true);
        check(Some("m"), Some("admin"), true);
        check(Some("m"), Some("v"), true);
        check(Some("m"), Some("mm"), false);
        check(Some("m"), Some(""), false);
        let nobody = OperatorTokens::default();
        assert!(!nobody.may_read_metrics(None) && !nobody.may_read_metrics(secret("").as_ref()));
    }

    #[test]
    fn a_token_is_a_role() {
        let secret = |text: &str| Some(Secret::new(text));
        let check =
            |admin: Option<&str>, viewer: Option<&str>, presented: Option<&str>, expected: Option<TokenRole>| {
                let (admin_token, viewer_token) = (admin.and_then(secret), viewer.and_then(secret));
                let metrics = MetricsAccess::Token;
                let access = OperatorTokens { metrics, metrics_token: secret("m"), admin_token, viewer_token };
                assert_eq!(
                    access.role(presented.and_then(secret).as_ref()),
                    expected,
                    "{admin:?} {viewer:?} {presented:?}"
                );
            };
        check(Some("a"), Some("v"), Some("a"), Some(TokenRole::Operator));
        check(Some("a"), Some("v"), Some("v"), Some(TokenRole::Viewer));
        check(Some("a"), Some("a"), Some("a"), Some(TokenRole::Operator));
        check(Some("a"), None, Some("v"), None);
        check(Some("a"), Some("v"), Some("m"), None);
        check(Some("a"), Some("v"), None, None);
        check(None, None, Some(""), None);
        check(None, None, None, None);
    }
}
