//! `/admin/v1/session`: a browser signs in, is told who it is, and signs out.

use super::access::OperatorAccess;
use super::error::AdminFailure;
use super::{AdminRequest, AdminResponse};
use crate::admin::AdminError;
use crate::admin::views::SessionObject;
use crate::http::sessions;

pub(super) async fn sign_in(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, access, snapshot, .. } = request;
    let token = access.token(&app).ok_or(AdminFailure::NoToken)?;
    let role = access.role(&app).ok_or(AdminFailure::NoToken)?;
    let opened = app.sessions.open(token, app.clock.now(), app.clock.unix_ms());
    let (secret, session) = opened.ok_or(AdminError::NoRandomBytes)?;
    let object = SessionObject::of(role.label(), Some((session.csrf.expose(), session.ends_unix_ms)));
    let cookie = sessions::cookie(&secret, snapshot.server.tls.is_some());
    Ok(AdminResponse::ok(&object).created().with_cookie(cookie))
}

pub(super) async fn read(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, access, .. } = request;
    let role = access.role(&app).ok_or(AdminFailure::NoToken)?;
    let session = match access {
        OperatorAccess::Token(_) => None,
        OperatorAccess::Session(id) => app.sessions.find(id, app.clock.now()),
    };
    let session = session.as_ref().map(|session| (session.csrf.expose(), session.ends_unix_ms));
    Ok(AdminResponse::ok(&SessionObject::of(role.label(), session)))
}

pub(super) async fn sign_out(request: AdminRequest) -> Result<AdminResponse, AdminFailure> {
    let AdminRequest { app, access, snapshot, .. } = request;
    let role = access.role(&app).ok_or(AdminFailure::NoToken)?;
    if let OperatorAccess::Session(id) = access {
        app.sessions.end(id);
    }
    let cookie = sessions::removed_cookie(snapshot.server.tls.is_some());
    Ok(AdminResponse::ok(&SessionObject::of(role.label(), None)).with_cookie(cookie))
}
