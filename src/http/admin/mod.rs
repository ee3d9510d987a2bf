//! The admin API: the actions of operators, over HTTP.
//!
//! Every path below `/admin` needs a token, also those that do not exist: without one, nothing is disclosed. A handler
//! reads its fields, calls [`AdminOperations`], which has the rules, and returns an object of
//! [`views`](crate::admin::views). It must never return a secret a second time. A browser that presented a token once has a
//! session in its place.
//!
//! Start reading in [`operations`], then [`handle`].

mod access;
mod audit;
mod configuration;
mod credits;
mod error;
mod faults;
mod input;
mod keys;
mod live;
mod openapi;
mod operations;
mod posture;
mod reports;
mod sessions;
mod sla;
mod status;
mod teams;
mod value_types;

use super::AppState;
use super::request_handler::RequestArrival;
use super::upload::Upload;
use crate::admin::views::to_json;
use crate::admin::{AdminError, AdminOperations};
use crate::config::Snapshot;
use crate::domain::audit::Operator;
use crate::domain::call::BodyProblem;
use crate::domain::memory::InFlightAllowance;
use crate::domain::refusal::SecretTarget;
use access::OperatorAccess;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use error::AdminFailure;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, SET_COOKIE};
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode};
use input::{InputFields, InputValue};
use operations::{AdminMethod, AdminOperation, OPERATIONS};
use serde::Serialize;
use serde_json::Value;
use std::panic::resume_unwind;
use std::sync::Arc;

/// Maximum size of a body, in bytes: a hundred times that of a key with every field.
const BODY_MAX: u64 = 64 * 1024;

/// The routes of every operation.
pub fn routes() -> Router<Arc<AppState>> {
    let mut paths: Vec<&'static str> = OPERATIONS.iter().map(|operation| operation.path).collect();
    paths.dedup();
    paths.into_iter().fold(Router::new(), |router, path| {
        let handler =
            move |State(app): State<Arc<AppState>>, name: Result<Path<String>, PathRejection>, request: Request| {
                let name = name.map_or_else(|_| String::new(), |Path(name)| name);
                handle(app, Some(path), name, request)
            };
        router.route(path, any(handler))
    })
}

/// Whether `path` belongs to the admin API, whether or not it exists.
pub fn is_below(path: &str) -> bool {
    path == "/admin" || path.starts_with("/admin/")
}

/// Answers a path below `/admin` that has no route.
pub async fn not_found(app: Arc<AppState>, request: Request) -> Response {
    handle(app, None, String::new(), request).await
}

/// The input of one operation.
struct AdminRequest {
    app: Arc<AppState>,
    /// What let it in.
    access: OperatorAccess,
    /// The actions of whoever sent it.
    admin: AdminOperations,
    /// The configuration that is active when the request arrives; it stays the same for the whole operation.
    snapshot: Arc<Snapshot>,
    /// The name in the path; empty if the path has none.
    name: String,
    query: InputFields,
    body: InputFields,
    if_match: IfMatch,
}

/// The output of one operation.
struct AdminResponse {
    status: StatusCode,
    body: AdminBody,
    version: Option<i64>,
    /// What a browser is to keep.
    cookie: Option<HeaderValue>,
}

/// The body of an answer.
enum AdminBody {
    Json(Value),
    /// Server-sent events.
    Events(Body),
}

impl AdminResponse {
    fn ok(object: &impl Serialize) -> Self {
        Self::with(AdminBody::Json(to_json(object)))
    }

    fn events(body: Body) -> Self {
        Self::with(AdminBody::Events(body))
    }

    fn with(body: AdminBody) -> Self {
        Self { status: StatusCode::OK, body, version: None, cookie: None }
    }

    fn with_cookie(self, cookie: HeaderValue) -> Self {
        Self { cookie: Some(cookie), ..self }
    }

    fn created(self) -> Self {
        Self { status: StatusCode::CREATED, ..self }
    }

    fn of_version(self, version: Option<i64>) -> Self {
        Self { version, ..self }
    }

    /// The key, team or holder of credit that the answer is about.
    fn subject(&self) -> Option<&str> {
        let AdminBody::Json(body) = &self.body else { return None };
        ["name", "key", "team"].iter().find_map(|field| body[field].as_str())
    }

    fn response(self) -> Response {
        let (content_type, mut response) = match self.body {
            AdminBody::Json(body) => ("application/json", (self.status, format!("{body}\n")).into_response()),
            AdminBody::Events(body) => ("text/event-stream", (self.status, body).into_response()),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(cookie) = self.cookie {
            headers.insert(SET_COOKIE, cookie);
        }
        if let Some(version) = self.version {
            headers.insert(ETAG, HeaderValue::try_from(format!("\"{version}\"")).expect("digits are a header value"));
        }
        response
    }
}

/// Handles one request: checks token, path, method, role and fields in this order, then runs the operation.
async fn handle(app: Arc<AppState>, path: Option<&'static str>, name: String, request: Request) -> Response {
    let arrival = request.extensions().get::<RequestArrival>().map(|arrival| arrival.id);
    let mut response = match perform(app, path, name, request).await {
        Ok(answer) => answer.response(),
        Err(failure) => {
            let row = failure.api_error();
            if row.status.is_server_error() {
                let request_id = arrival.map(tracing::field::display);
                tracing::warn!(request_id, code = row.code, "{}", row.log);
            }
            row.response()
        }
    };
    // It may contain a secret, and is out of date soon.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn perform(
    app: Arc<AppState>,
    path: Option<&'static str>,
    name: String,
    request: Request,
) -> Result<AdminResponse, AdminFailure> {
    let (parts, body) = request.into_parts();
    // Dropping it discards what was not read of the body, so that the client can read an early answer.
    let upload = Upload::new(body, &parts.headers, BODY_MAX, app.clock);
    let access = match OperatorAccess::of(&app, &parts, operations::is_sign_in(path, &parts.method)) {
        Ok(access) => access,
        Err((failure, presented)) => {
            drop(upload);
            if matches!(failure, AdminFailure::NoToken) {
                app.refuse_token(SecretTarget::Admin, presented.as_ref(), &parts.extensions).await;
            }
            return Err(failure);
        }
    };
    if let Some(connection) = RequestArrival::connection(&parts.extensions) {
        connection.key_accepted();
    }
    let operation = find_operation(path, &parts.method, parts.uri.path())?;
    let permitted = || {
        let role = access.role(&app).ok_or(AdminFailure::NoToken)?;
        operation.permits(role).then_some(role).ok_or(AdminFailure::ReadOnlyToken)
    };
    permitted()?;
    if operation.changes() && !access.may_change(&app, &parts) {
        return Err(AdminFailure::NoCsrf);
    }
    let query = InputFields::of_query(parts.uri.query().unwrap_or_default(), operation.query)?;
    let if_match = if operation.conditional { IfMatch::of(&parts.headers)? } else { IfMatch::Anything };
    let body = match operation.body {
        Some(spec) => read_body(&parts.headers, upload, spec).await?,
        None => InputFields::default(),
    };
    // Again: a body may take as long as its client likes, and a reload changes tokens.
    let role = permitted()?;
    let request = AdminRequest {
        app: app.clone(),
        access,
        admin: app.admin.by(operator(&parts.extensions, operation, access)),
        snapshot: app.relay.active_config().snapshot.clone(),
        name,
        query,
        body,
        if_match,
    };
    if !operation.changes() {
        return (operation.run)(request).await;
    }
    let request_id = parts.extensions.get::<RequestArrival>().map(|arrival| arrival.id);
    run_to_completion(async move {
        let answer = (operation.run)(request).await?;
        let (request_id, role) = (request_id.map(tracing::field::display), role.label());
        let subject = answer.subject();
        tracing::info!(request_id, operation = operation.id, subject, role, "an operator changed something");
        app.relay.apply_store_changes();
        Ok(answer)
    })
    .await
}

/// Who asks for `operation` with a request of these extensions. There is one token that may change anything at a time, and
/// nothing is written of it.
fn operator(extensions: &Extensions, operation: &AdminOperation, access: OperatorAccess) -> Operator {
    let peer = RequestArrival::connection(extensions).map(|connection| connection.peer());
    let origin = peer.map(|peer| peer.map_or_else(|| "a local socket".to_owned(), |peer| peer.to_string()));
    Operator {
        who: access.label().into(),
        origin: origin.map_or_else(|| "unknown".into(), Into::into),
        command: operation.id.into(),
        request_id: extensions.get::<RequestArrival>().map(|arrival| arrival.id.to_string().into()),
    }
}

/// Runs `change` to its end, even if the client disconnects: it must be applied and logged once it is written.
async fn run_to_completion(
    change: impl Future<Output = Result<AdminResponse, AdminFailure>> + Send + 'static,
) -> Result<AdminResponse, AdminFailure> {
    tokio::spawn(change).await.unwrap_or_else(|failed| match failed.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        // The runtime is shutting down.
        Err(_) => Err(AdminError::Unavailable.into()),
    })
}

fn find_operation(
    path: Option<&'static str>,
    method: &Method,
    route: &str,
) -> Result<&'static AdminOperation, AdminFailure> {
    let Some(path) = path else { return Err(AdminFailure::UnknownUrl(route.to_owned())) };
    let here = || OPERATIONS.iter().filter(|operation| operation.path == path);
    here().find(|operation| Some(operation.method) == AdminMethod::of(method)).ok_or_else(|| {
        let allowed: Vec<_> = here().map(|operation| operation.method.allowed()).collect();
        AdminFailure::WrongMethod(allowed.join(", "))
    })
}

/// The fields of a body. An optional body may be empty, and needs no content type then.
async fn read_body(
    headers: &HeaderMap,
    upload: Upload,
    spec: operations::BodySpec,
) -> Result<InputFields, AdminFailure> {
    let content_type = headers.get(CONTENT_TYPE);
    let is_json = content_type.is_some_and(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    });
    if !is_json && (content_type.is_some() || !spec.is_optional) {
        return Err(AdminFailure::NotJson);
    }
    let bytes = upload.gather(InFlightAllowance::default()).await.map_err(AdminFailure::Body)?;
    if bytes.is_empty() && spec.is_optional {
        return Ok(InputFields::default());
    }
    if !is_json {
        return Err(AdminFailure::NotJson);
    }
    let node = serde_json::from_slice::<InputValue>(&bytes).map_err(|error| {
        AdminFailure::Body(BodyProblem::NotJson(format!("The body is not JSON: {error}. Send a JSON object.")))
    })?;
    Ok(InputFields::of(&node, spec.fields)?)
}

/// The condition of a change, from `If-Match`.
enum IfMatch {
    Anything,
    /// The entity tags that the header lists.
    Only(Vec<String>),
}

impl IfMatch {
    fn of(headers: &HeaderMap) -> Result<Self, AdminFailure> {
        let mut tags = Vec::new();
        for value in headers.get_all(IF_MATCH) {
            let tag = |tag: &str| {
                let opaque = tag.strip_prefix("W/").unwrap_or(tag);
                let inner = opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                inner.is_some_and(|inner| !inner.contains('"')).then(|| tag.to_owned())
            };
            let text = value.to_str().unwrap_or_default().trim();
            let list: Option<Vec<String>> =
                if text == "*" { Some(vec![]) } else { text.split(',').map(|t| tag(t.trim())).collect() };
            let Some(list) = list else {
                let message = "'if-match' must be '*', or an 'etag' as it was given, quotes included.".to_owned();
                return Err(AdminFailure::Invalid { param: "if-match".to_owned(), message });
            };
            if list.is_empty() {
                return Ok(Self::Anything);
            }
            tags.extend(list);
        }
        Ok(if tags.is_empty() { Self::Anything } else { Self::Only(tags) })
    }

    /// The version that the change must find, given the current one; `None`: any version.
    fn expected(&self, current: Option<i64>) -> Result<Option<i64>, AdminFailure> {
        match self {
            Self::Anything => Ok(None),
            Self::Only(tags) => {
                let wanted = |version: &i64| tags.iter().any(|tag| *tag == format!("\"{version}\""));
                current.filter(wanted).map(Some).ok_or(AdminFailure::Changed)
            }
        }
    }
}
