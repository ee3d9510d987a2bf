//! Every call on `/v1` that is routed, and every one that cannot be: one handler.
//!
//! It must stay this short: ingress, corridor, egress. Whatever differs between endpoints is decided
//! in the rooms behind.

use crate::http::conn::connection::Connection;
use crate::http::egress::{self, Outlet};
use crate::http::{App, Route, ingress};
use axum::extract::Request;
use axum::response::Response;
use std::sync::Arc;

/// Walks one request through the corridor.
pub async fn walk(app: Arc<App>, route: Route, request: Request) -> Response {
    let in_flight = app.telemetry.metrics.request_started();
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    let raw = ingress::read(&app, route, request);
    let result = app.relay.serve(raw).await;
    egress::answer(result, Outlet { app: &app, connection, in_flight })
}
