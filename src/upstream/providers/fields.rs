//! The headers and the query of what is sent to one host: ours, the operator's, and what of the client's it is to get.
//!
//! Nothing of a client's passes that is not listed, and nothing that is written here can be replaced by what is.
//!
//! Start reading in [`HostFields::write`].

use crate::domain::secret::Secret;
use crate::upstream::{FieldSetup, ForwardedFields};
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use std::sync::Arc;

/// What we call ourselves where neither operator nor client says otherwise: many hosts refuse who has no name.
const OUR_NAME: &str = concat!("tierway/", env!("CARGO_PKG_VERSION"));

/// What is written besides the headers of every request.
pub(super) struct HostFields {
    headers: HeaderMap,
    forward_headers: Vec<HeaderName>,
    /// The client's name for itself is among [`Self::forward_headers`]; else ours is among [`Self::headers`].
    forwards_name: bool,
    forward_query: Vec<Arc<str>>,
}

impl HostFields {
    /// What `setup` says; `None` where a value holds what no header can.
    pub(super) fn of(setup: &FieldSetup) -> Option<Self> {
        let value = |(name, value): &(HeaderName, Secret)| Some((name.clone(), sensitive(value.expose())?));
        let mut headers: HeaderMap = setup.headers.iter().map(value).collect::<Option<_>>()?;
        let forwards_name = setup.forward_headers.contains(&USER_AGENT);
        if !forwards_name {
            headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(OUR_NAME));
        }
        let (forward_headers, forward_query) = (setup.forward_headers.clone(), setup.forward_query.clone());
        Some(Self { headers, forward_headers, forwards_name, forward_query })
    }

    /// How many headers there may be.
    pub(super) fn len(&self) -> usize {
        self.headers.len() + self.forward_headers.len()
    }

    /// Writes them into `headers`, over what the client sent.
    pub(super) fn write(&self, client: ForwardedFields<'_>, headers: &mut HeaderMap) {
        for name in &self.forward_headers {
            for value in client.headers.into_iter().flat_map(|all| all.get_all(name)) {
                headers.append(name, value.clone());
            }
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        if self.forwards_name {
            headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(OUR_NAME));
        }
    }

    /// `base` with what of the client's query this host is to get.
    pub(super) fn url(&self, base: &Url, client: ForwardedFields<'_>) -> Url {
        let mut url = base.clone();
        let Some(query) = client.query.filter(|_| !self.forward_query.is_empty()) else { return url };
        let mut given = base.clone();
        given.set_query(Some(query));
        let is_taken = |name: &str| base.query_pairs().any(|(taken, _)| taken == name);
        for (name, value) in given.query_pairs() {
            // What the configured address says is the operator's word.
            if self.forward_query.iter().any(|listed| **listed == *name) && !is_taken(&name) {
                url.query_pairs_mut().append_pair(&name, &value);
            }
        }
        url
    }
}

/// `text` as a header's value that is not shown.
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(headers: &[(&'static str, &str)], forward_headers: &[&'static str], forward_query: &[&str]) -> FieldSetup {
        FieldSetup {
            headers: headers.iter().map(|(name, value)| (HeaderName::from_static(name), Secret::new(*value))).collect(),
            forward_headers: forward_headers.iter().map(|name| HeaderName::from_static(name)).collect(),
            forward_query: forward_query.iter().map(|name| (*name).into()).collect(),
        }
    }

    #[test]
    fn a_host_gets_what_is_configured_and_what_is_listed_of_the_clients() {
        let client = HeaderMap::from_iter([
            (HeaderName::from_static("x-one"), HeaderValue::from_static("1")),
            (HeaderName::from_static("x-two"), HeaderValue::from_static("2")),
            (USER_AGENT, HeaderValue::from_static("client/1")),
        ]);
        let check = |setup: FieldSetup, expected: &[&str]| {
            let fields = HostFields::of(&setup).expect("the case is headers");
            let mut headers = HeaderMap::new();
            fields.write(ForwardedFields { headers: Some(&client), query: None }, &mut headers);
            let mut lines: Vec<_> =
                headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().expect("it is text"))).collect();
            lines.sort_unstable();
            assert_eq!(lines, expected);
        };
        let ours = format!("user-agent: {OUR_NAME}");
        check(setup(&[], &[], &[]), &[&ours]);
        check(setup(&[("x-key", "k")], &["x-one", "x-none"], &[]), &[&ours, "x-key: k", "x-one: 1"]);
        check(setup(&[], &["user-agent"], &[]), &["user-agent: client/1"]);
        check(setup(&[("user-agent", "mine/2")], &["x-two"], &[]), &["user-agent: mine/2", "x-two: 2"]);
        // The operator's word counts.
        check(
            setup(&[("x-one", "fixed"), ("user-agent", "mine/2")], &["x-one", "user-agent"], &[]),
            &["user-agent: mine/2", "x-one: fixed"],
        );
        let fields = HostFields::of(&setup(&[], &["user-agent"], &[])).expect("no headers");
        let mut headers = HeaderMap::new();
        fields.write(ForwardedFields::default(), &mut headers);
        assert_eq!(headers.get(USER_AGENT).and_then(|name| name.to_str().ok()), Some(OUR_NAME));
        assert!(HostFields::of(&setup(&[("x-key", "a\nb")], &[], &[])).is_none());
    }

    #[test]
    fn only_listed_parameters_pass_and_none_that_the_address_has() {
        let check = |base: &str, listed: &[&str], query: Option<&str>, expected: &str| {
            let fields = HostFields::of(&setup(&[], &[], listed)).expect("no headers");
            let base = Url::parse(base).expect("the case is a URL");
            let url = fields.url(&base, ForwardedFields { headers: None, query });
            assert_eq!(url.as_str(), expected);
        };
        let host = "https://a.example/v1";
        check(host, &[], Some("a=1"), host);
        check(host, &["a"], None, host);
        check(host, &["a"], Some("b=2&key=x"), host);
        check(host, &["a", "c"], Some("a=1&b=2&c=%26%C3%A9&a=3"), "https://a.example/v1?a=1&c=%26%C3%A9&a=3");
        check(&format!("{host}?v=1"), &["v", "a"], Some("v=2&a=3"), "https://a.example/v1?v=1&a=3");
    }
}
