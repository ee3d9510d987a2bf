//! Browsers that are signed in: each presented a token of operators once and has an opaque session in its place.
//!
//! A session is what its token is: it has that token's role, and ends with it when a reload replaces the token. It is
//! stored as a hash, and nowhere but here: a restart ends all. A page of another site cannot use one, because its cookie is
//! sent to this site's own pages alone, and a change needs a value besides it that only those pages can read.
//!
//! Start reading at [`Sessions`].

use crate::admin::RandomBytes;
use crate::domain::secret::{KeyHash, Secret, new_session_secret, new_sign_in_token};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// How long a session lasts.
pub const SESSION_LASTS: Duration = Duration::from_secs(12 * 60 * 60);
/// The most sessions at a time; one more ends the oldest.
const MOST_SESSIONS: usize = 200;
const COOKIE_NAME: &str = "tierway_session";
/// The longest cookie header that is looked at, in bytes.
const LONGEST_COOKIES: usize = 16 * 1024;

/// Every session of this process.
pub struct Sessions {
    random: RandomBytes,
    open: Mutex<Vec<Session>>,
    /// What signs one browser in, once.
    link: Mutex<Option<KeyHash>>,
}

struct Session {
    id: KeyHash,
    token: KeyHash,
    csrf: Secret,
    ends: Instant,
    ends_unix_ms: i64,
}

/// A session as a request finds it.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// The hash of its secret.
    pub id: KeyHash,
    /// The hash of the token that it was opened with.
    pub token: KeyHash,
    /// What its changes present beside the cookie.
    pub csrf: Secret,
    /// Its end, in Unix milliseconds.
    pub ends_unix_ms: i64,
}

impl SessionRecord {
    /// Whether `presented` is what its changes are to present.
    pub fn is_csrf(&self, presented: Option<&HeaderValue>) -> bool {
        presented.is_some_and(|value| value.as_bytes().ct_eq(self.csrf.expose().as_bytes()).into())
    }
}

impl Sessions {
    /// None yet; `random` makes their secrets.
    pub fn new(random: RandomBytes) -> Self {
        Self { random, open: Mutex::default(), link: Mutex::default() }
    }

    /// Opens a session for whoever presented the token with this hash: its secret, and the session. `None`: the system has
    /// no random bytes.
    pub fn open(&self, token: KeyHash, now: Instant, unix_ms: i64) -> Option<(Secret, SessionRecord)> {
        let (secret, csrf) = (new_session_secret(&*(self.random)()?), new_session_secret(&*(self.random)()?));
        let ends_unix_ms = unix_ms.saturating_add(SESSION_LASTS.as_millis() as i64);
        let id = KeyHash::of(secret.expose());
        let mut open = self.open.lock();
        open.retain(|session| session.ends > now);
        if open.len() == MOST_SESSIONS {
            open.remove(0);
        }
        open.push(Session { id, token, csrf: csrf.clone(), ends: now + SESSION_LASTS, ends_unix_ms });
        drop(open);
        Some((secret, SessionRecord { id, token, csrf, ends_unix_ms }))
    }

    /// The open session whose secret is among the cookies of `headers`.
    pub fn presented(&self, headers: &HeaderMap, now: Instant) -> Option<SessionRecord> {
        cookies(headers).find_map(|secret| self.find(KeyHash::of(secret), now))
    }

    /// The open session with this hash.
    pub fn find(&self, id: KeyHash, now: Instant) -> Option<SessionRecord> {
        let open = self.open.lock();
        let session = open.iter().find(|session| session.id == id && session.ends > now)?;
        let Session { id, token, csrf, ends_unix_ms, .. } = session;
        Some(SessionRecord { id: *id, token: *token, csrf: csrf.clone(), ends_unix_ms: *ends_unix_ms })
    }

    /// Ends the session with this hash.
    pub fn end(&self, id: KeyHash) {
        self.open.lock().retain(|session| session.id != id);
    }

    /// Makes what signs one browser in, once, in place of what was made before. `None`: the system has no random bytes.
    pub fn make_link(&self) -> Option<Secret> {
        let secret = new_sign_in_token(&*(self.random)()?);
        *self.link.lock() = Some(KeyHash::of(secret.expose()));
        Some(secret)
    }

    /// Whether `presented` signs in, which it does not do again.
    pub fn take_link(&self, presented: &Secret) -> bool {
        let mut link = self.link.lock();
        let is_it = link.is_some_and(|link| link == KeyHash::of(presented.expose()));
        if is_it {
            *link = None;
        }
        is_it
    }
}

/// The values of the session's cookie in `headers`.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all(COOKIE).iter().filter(|value| value.len() <= LONGEST_COOKIES);
    let pairs = all.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, value)| value)
}

/// The `set-cookie` of a session; `secure`: the browser is to send it over TLS alone.
pub fn cookie(secret: &Secret, secure: bool) -> HeaderValue {
    set_cookie(secret.expose(), SESSION_LASTS, secure)
}

/// The `set-cookie` that removes it.
pub fn removed_cookie(secure: bool) -> HeaderValue {
    set_cookie("", Duration::ZERO, secure)
}

fn set_cookie(value: &str, lasts: Duration, secure: bool) -> HeaderValue {
    let secure = if secure { "; Secure" } else { "" };
    let age = lasts.as_secs();
    let text = format!("{COOKIE_NAME}={value}; Path=/admin; Max-Age={age}; HttpOnly; SameSite=Strict{secure}");
    let mut value = HeaderValue::try_from(text).expect("letters and digits are a header's value");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, Ordering};
    use zeroize::Zeroizing;

    /// Their secrets are numbered, so that all differ.
    fn sessions() -> Sessions {
        let next = AtomicU16::new(0);
        Sessions::new(Arc::new(move || {
            let mut bytes = [0; 32];
            bytes[30..].copy_from_slice(&next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            Some(Zeroizing::new(bytes))
        }))
    }

    fn with_cookie(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(value).expect("the case is a value"))])
    }

    #[test]
    fn a_session_is_found_by_its_cookie_until_it_ends() {
        let (sessions, now, token) = (sessions(), Instant::now(), KeyHash::of("t"));
        let (secret, session) = sessions.open(token, now, 1_000).expect("there is chance");
        let found = |value: &str, at| sessions.presented(&with_cookie(value), at).map(|found| found.token);
        let right = format!("a=b; tierway_session={}; c=d", secret.expose());
        assert_eq!(found(&right, now), Some(token));
        assert_eq!(found(&format!("tierway_session=wrong; tierway_session={}", secret.expose()), now), Some(token));
        assert_eq!(session.ends_unix_ms, 1_000 + 12 * 3_600_000);
        for wrong in ["", "tierway_session=", "tierway_session", "TIERWAY_SESSION=x", "tierway_session=wrong"] {
            assert_eq!(found(wrong, now), None, "{wrong}");
        }
        assert_eq!(found(&right, now + SESSION_LASTS), None, "it ends by itself");
        sessions.end(session.id);
        assert_eq!(found(&right, now), None);
    }

    #[test]
    fn a_change_presents_what_only_the_page_knows() {
        let (sessions, now) = (sessions(), Instant::now());
        let (secret, session) = sessions.open(KeyHash::of("t"), now, 0).expect("there is chance");
        let value = |text: &str| HeaderValue::from_str(text).expect("the case is a value");
        assert!(session.is_csrf(Some(&value(session.csrf.expose()))));
        assert_ne!(session.csrf.expose(), secret.expose());
        for wrong in [None, Some(value("")), Some(value(secret.expose())), Some(value("x"))] {
            assert!(!session.is_csrf(wrong.as_ref()), "{wrong:?}");
        }
    }

    #[test]
    fn the_oldest_session_makes_place_for_one_too_many() {
        let (sessions, now) = (sessions(), Instant::now());
        let first = sessions.open(KeyHash::of("t"), now, 0).expect("there is chance").1;
        for _ in 1..MOST_SESSIONS {
            sessions.open(KeyHash::of("t"), now, 0);
        }
        assert!(sessions.find(first.id, now).is_some());
        sessions.open(KeyHash::of("t"), now, 0);
        assert!(sessions.find(first.id, now).is_none());
        assert_eq!(sessions.open.lock().len(), MOST_SESSIONS);
    }

    #[test]
    fn a_link_signs_in_once() {
        let sessions = sessions();
        assert!(!sessions.take_link(&Secret::new("")), "there is none");
        let (old, link) = (sessions.make_link().expect("chance"), sessions.make_link().expect("chance"));
        assert!(!sessions.take_link(&old) && !sessions.take_link(&Secret::new("twl_wrong")));
        assert!(sessions.take_link(&link) && !sessions.take_link(&link));
    }

    #[test]
    fn a_cookie_is_for_this_site_and_no_script() {
        let text = |value: HeaderValue| value.to_str().expect("it is text").to_owned();
        let plain = text(cookie(&Secret::new("tws_x"), false));
        assert_eq!(plain, "tierway_session=tws_x; Path=/admin; Max-Age=43200; HttpOnly; SameSite=Strict");
        assert!(text(cookie(&Secret::new("tws_x"), true)).ends_with("; SameSite=Strict; Secure"));
        assert!(text(removed_cookie(false)).starts_with("tierway_session=; Path=/admin; Max-Age=0;"));
    }
}
