//! Every call on `/v1` that is routed, and every one that cannot be: one handler.
//!
//! It must stay this short: ingress, relay, egress. Whatever differs between endpoints is decided in the modules
//! that these call.

use crate::http::conn::connection::Connection;
use crate::http::egress::{self, Outlet};
use crate::http::{App, Route, ingress};
use axum::extract::Request;
use axum::response::Response;
use std::sync::Arc;

/// Reads one request, has it served and writes the response.
pub async fn serve(app: Arc<App>, route: Route, request: Request) -> Response {
    let in_flight = app.telemetry.metrics.request_started();
    let connection = request.extensions().get::<Arc<Connection>>().cloned();
    let raw = ingress::read(&app, route, request);
    let result = app.relay.serve(raw).await;
    egress::answer(result, Outlet { app: &app, dialect: route.dialect(), connection, in_flight })
}
