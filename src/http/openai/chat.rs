//! Every call on `/v1` that is routed, and every one that cannot be: one handler.
//!
//! It must stay this short: ingress, corridor, egress. Whatever differs between endpoints is decided
//! in the rooms behind.

use crate::http::egress::{self, Outlet};
use crate::http::wire::Wire;
use crate::http::{App, Asked, ingress};
use axum::extract::Request;
use axum::response::Response;
use std::sync::Arc;

/// Walks one request through the corridor.
pub async fn walk(app: Arc<App>, asked: Asked, request: Request) -> Response {
    let in_flight = app.telemetry.metrics.request_started();
    let wire = request.extensions().get::<Arc<Wire>>().cloned();
    let raw = ingress::read(&app, asked, request);
    let result = app.relay.serve(raw).await;
    egress::answer(result, Outlet { app: &app, wire, in_flight })
}
