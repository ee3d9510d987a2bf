//! Who sends a request to the admin API: by a token of operators, by a browser's session, or once by a link.
//!
//! A token that is presented counts alone, right or wrong; a session is looked for where there is none. What a request was
//! let in by is looked at again while it goes on: a reload may replace the token, and a session may end.
//!
//! Start reading at [`OperatorAccess::of`].

use super::error::AdminFailure;
use crate::domain::secret::{KeyHash, Secret};
use crate::http::AppState;
use crate::http::ingress;
use crate::http::ops::TokenRole;
use crate::http::request_handler::RequestArrival;
use http::HeaderName;
use http::request::Parts;
use std::net::IpAddr;

/// What a change by a session presents besides the session.
static CSRF: HeaderName = HeaderName::from_static("x-tierway-csrf");

/// What lets a request in.
#[derive(Clone, Copy, Debug)]
pub(super) enum OperatorAccess {
    /// The token with this hash.
    Token(KeyHash),
    /// The session with this hash.
    Session(KeyHash),
}

impl OperatorAccess {
    /// What lets the request with this head in; `may_use_link`: a link that signs in may. An error holds the token that
    /// was presented and is none.
    pub(super) fn of(
        app: &AppState,
        parts: &Parts,
        may_use_link: bool,
    ) -> Result<Self, (AdminFailure, Option<Secret>)> {
        let presented = ingress::key(&parts.headers).map_err(|_| (AdminFailure::SeveralTokens, None))?;
        let Some(token) = presented else {
            let session = app.sessions.presented(&parts.headers, app.clock.now());
            let access = session.map(|session| Self::Session(session.id));
            return access.filter(|access| access.role(app).is_some()).ok_or((AdminFailure::NoToken, None));
        };
        let access = Self::Token(KeyHash::of(token.expose()));
        if access.role(app).is_some() {
            return Ok(access);
        }
        // It stands for the admin token, which whoever made the link has.
        let admin = app.ops.load().admin_token.as_ref().map(|token| KeyHash::of(token.expose()));
        if let Some(admin) = admin.filter(|_| may_use_link && is_local(parts) && app.sessions.take_link(&token)) {
            return Ok(Self::Token(admin));
        }
        Err((AdminFailure::NoToken, Some(token)))
    }

    /// The role that it gives now; `None`: it lets nobody in any more.
    pub(super) fn role(self, app: &AppState) -> Option<TokenRole> {
        app.ops.load().role_of_hash(self.token(app)?)
    }

    /// The hash of the token that it is, or stands for.
    pub(super) fn token(self, app: &AppState) -> Option<KeyHash> {
        match self {
            Self::Token(token) => Some(token),
            Self::Session(id) => app.sessions.find(id, app.clock.now()).map(|session| session.token),
        }
    }

    /// Whether the request with this head may change something as far as its session is concerned.
    pub(super) fn may_change(self, app: &AppState, parts: &Parts) -> bool {
        match self {
            Self::Token(_) => true,
            Self::Session(id) => {
                let session = app.sessions.find(id, app.clock.now());
                session.is_some_and(|session| session.is_csrf(parts.headers.get(&CSRF)))
            }
        }
    }

    /// How the audit names who comes in by it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Token(_) => "admin token",
            Self::Session(_) => "admin token, by a browser's session",
        }
    }
}

/// Whether the request comes from this machine.
fn is_local(parts: &Parts) -> bool {
    let peer = RequestArrival::connection(&parts.extensions).and_then(|connection| connection.peer());
    peer.is_some_and(|peer: IpAddr| peer.to_canonical().is_loopback())
}
