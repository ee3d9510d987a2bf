//! Names and values of headers and query parameters that are sent to a provider, and names of members of a body.
//!
//! What belongs to one connection, what the gateway writes itself and what proves somebody's identity is refused here,
//! when it is written: nothing that is sent later asks again.

use std::sync::Arc;

use http::HeaderName;

use crate::config::reader::{ConfigValueRef, DisplayValue, SettingShape, SettingValue, ValueError};
use crate::domain::secret::Secret;

/// What belongs to one connection, RFC 9110 section 7.6.1, and what is left of it in use.
const OF_ONE_CONNECTION: [&str; 11] = [
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// What the gateway writes, by what it sends.
const WRITTEN_HERE: [&str; 6] =
    ["accept", "accept-encoding", "content-encoding", "content-length", "content-type", "host"];

/// Words in the names of what proves an identity.
const CREDENTIAL_WORDS: [&str; 12] = [
    "authorization",
    "cookie",
    "apikey",
    "accesskey",
    "functionskey",
    "subscriptionkey",
    "privatekey",
    "secret",
    "password",
    "credential",
    "signature",
    "bearer",
];

/// Parts of such names, between other characters than letters and digits.
const CREDENTIAL_PARTS: [&str; 6] = ["auth", "cert", "dpop", "jwt", "passphrase", "passwd"];

/// Whole names of such parameters.
const CREDENTIAL_NAMES: [&str; 4] = ["key", "pass", "pwd", "sig"];

/// Whether a header or a parameter called `name` proves somebody's identity.
fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut parts = name.split(|c: char| !c.is_ascii_alphanumeric());
    letters.ends_with("token")
        || CREDENTIAL_NAMES.contains(&&*letters)
        || parts.any(|part| CREDENTIAL_PARTS.contains(&part))
        || CREDENTIAL_WORDS.iter().any(|word| letters.contains(word))
}

/// The name of a header that is sent with every request. `is_written_out`: its value is in the file.
///
/// # Errors
/// When no header may be called so, or not this one.
pub(in crate::config) fn header_name(name: &str, is_written_out: bool) -> Result<HeaderName, ValueError> {
    let header = sendable(name)?;
    match header.as_str() {
        "authorization" => Err(ValueError::hinting("is written by the gateway", "use `credential = \"env:NAME\"`")),
        name if is_credential(name) && is_written_out => Err(ValueError::hinting(
            "a secret may not be written out in the file",
            "put it where the gateway starts and write \"env:NAME\" or \"file:/path\"",
        )),
        _ => Ok(header),
    }
}

/// A header that may be sent on in a request.
fn sendable(name: &str) -> Result<HeaderName, ValueError> {
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        ValueError::hinting("is not the name of a header", "write a name such as \"x-title\", without a colon")
    })?;
    if OF_ONE_CONNECTION.contains(&header.as_str()) {
        return Err(ValueError::hinting("belongs to one connection and is never passed on", "remove it"));
    }
    if WRITTEN_HERE.contains(&header.as_str()) {
        return Err(ValueError::hinting("is written by the gateway", "remove it"));
    }
    Ok(header)
}

/// The text of a header that is sent with every request.
#[derive(Clone)]
pub(in crate::config) struct HeaderText {
    pub(in crate::config) text: Secret,
    /// Whether it is in the file itself.
    pub(in crate::config) is_written_out: bool,
}

impl SettingValue for HeaderText {
    const EXPECTED: &'static str = "a text in double quotes, or \"env:NAME\" or \"file:/path\"";
    const SENSITIVE: bool = true;

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        // It may be a secret in the wrong place.
        value_ref.hide();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') || text.trim() != text {
            return Err(ValueError::hinting(
                "is empty, has blanks around it, or holds characters other than printable ASCII",
                "check for line ends and quotes around it",
            ));
        }
        Ok(Self { text: Secret::new(text), is_written_out: !value_ref.is_reference() })
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Masked
    }
}

/// A header that is passed on where a client sends it.
#[derive(Clone, PartialEq)]
pub(in crate::config) struct ForwardedHeaderName(pub(in crate::config) HeaderName);

impl SettingValue for ForwardedHeaderName {
    const EXPECTED: &'static str = "the name of a header, such as \"x-title\"";

    fn shape() -> SettingShape {
        SettingShape::Pattern("[!#$%&'*+.^_`|~0-9A-Za-z-]+")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let header = sendable(&value_ref.text()?)?;
        match is_credential(header.as_str()) {
            true => Err(ValueError::hinting("a client's credentials are never passed on", "remove it")),
            false => Ok(Self(header)),
        }
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.0.as_str().to_owned())
    }
}

/// A parameter of a client's query that is passed on.
#[derive(Clone, PartialEq)]
pub(in crate::config) struct ForwardedQueryName(pub(in crate::config) Arc<str>);

impl SettingValue for ForwardedQueryName {
    const EXPECTED: &'static str = "the name of a parameter, such as \"api-version\"";

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let name = value_ref.text()?;
        if name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace() || "&=#?%+".contains(c)) {
            return Err(ValueError::new("is not the name of a parameter"));
        }
        match is_credential(&name) {
            true => Err(ValueError::hinting("a client's credentials are never passed on", "remove it")),
            false => Ok(Self(name.into())),
        }
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.0.to_string())
    }
}

/// A member of a body that a rule is about: at the top of the body, or the kind of a tool. In lower case, because some
/// providers ignore case.
#[derive(Clone, PartialEq)]
pub(in crate::config) struct BodyMemberName(pub(in crate::config) Arc<str>);

impl SettingValue for BodyMemberName {
    const EXPECTED: &'static str = "the name of a member of the body, such as \"service_tier\"";

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let name = value_ref.text()?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
            return Err(ValueError::new("is not the name of a member"));
        }
        if name.eq_ignore_ascii_case("model") {
            return Err(ValueError::hinting("every body has it", "remove it"));
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.0.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proves_an_identity_is_known_by_its_name() {
        for name in [
            "authorization",
            "Proxy-Authorization",
            "cookie",
            "set-cookie",
            "api-key",
            "x-api-key",
            "x-goog-api-key",
            "api_key",
            "ocp-apim-subscription-key",
            "x-amz-security-token",
            "access_token",
            "token",
            "key",
            "sig",
            "X-Amz-Signature",
            "x-client-secret",
            "x-auth-user",
            "X-Functions-Key",
            "x-forwarded-client-cert",
        ] {
            assert!(is_credential(name), "{name}");
        }
        for name in [
            "x-title",
            "http-referer",
            "user-agent",
            "idempotency-key",
            "api-version",
            "x-token-count",
            "keys",
            "x-author",
        ] {
            assert!(!is_credential(name), "{name}");
        }
    }

    #[test]
    fn a_header_of_every_request_may_be_a_credential_by_reference_alone() {
        let check = |name: &str, is_written_out: bool, expected: Option<&str>| {
            let found = header_name(name, is_written_out).map_err(|wrong| wrong.message);
            assert_eq!(found.err().as_deref(), expected, "{name}");
        };
        check("X-Title", true, None);
        check("user-agent", true, None);
        check("api-key", false, None);
        check("api-key", true, Some("a secret may not be written out in the file"));
        check("Authorization", false, Some("is written by the gateway"));
        check("content-type", true, Some("is written by the gateway"));
        check("Host", true, Some("is written by the gateway"));
        check("connection", true, Some("belongs to one connection and is never passed on"));
        check("x title", true, Some("is not the name of a header"));
    }
}
