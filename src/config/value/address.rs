//! Addresses to listen at, origins of web pages, and the URLs of providers, proxies and stores.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::listen::{ListenAddress, ListenAddressError};
use crate::config::reader::{ConfigValueRef, DisplayValue, SettingShape, SettingValue, ValueError};
use crate::config::settings::StoreLocation;
use crate::domain::secret::{MASK, Secret};

impl SettingValue for ListenAddress {
    const EXPECTED: &'static str = Self::EXPECTED;

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        text.parse().map_err(|wrong: ListenAddressError| ValueError::hinting(wrong.message, wrong.hint))
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.to_string())
    }
}

/// The origin of web pages as a browser sends it: scheme, host, and a port that is not the usual one; `*` is any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) struct WebOriginText(pub(in crate::config) String);

impl WebOriginText {
    /// Every origin.
    pub(in crate::config) const ANY: &str = "*";
}

impl SettingValue for WebOriginText {
    const EXPECTED: &'static str = "an origin such as \"https://app.example.com\", or \"*\" for any";

    fn shape() -> SettingShape {
        SettingShape::Pattern("(\\*|[A-Za-z][A-Za-z0-9+.-]*://[^/?#@*]+/?)")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        if text == Self::ANY {
            return Ok(Self(text));
        }
        if text == "null" {
            return Err(ValueError::hinting(
                "is the origin of every page without one",
                "serve the page from a host, and write that",
            ));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| ValueError::new("has no scheme"))?;
        // As an address bar shows it.
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@', '*']) || rest.is_empty() || text.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err(ValueError::new("is more or less than scheme, host and port"));
        }
        // Browsers write it in lower case, without the usual port of its scheme.
        let (scheme, host) = (scheme.to_ascii_lowercase(), rest.to_ascii_lowercase());
        let host = match scheme.as_str() {
            "https" => host.strip_suffix(":443").unwrap_or(&host),
            "http" => host.strip_suffix(":80").unwrap_or(&host),
            _ => &host,
        };
        Ok(Self(format!("{scheme}://{host}")))
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.0.clone())
    }
}

/// One address, or a network of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) struct NetworkText(pub(in crate::config) IpNet);

impl SettingValue for NetworkText {
    const EXPECTED: &'static str = "an address such as \"10.0.0.7\", or a network such as \"10.0.0.0/8\"";

    fn shape() -> SettingShape {
        SettingShape::Pattern("[0-9A-Fa-f.:]+(/[0-9]+)?")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        let network = text.parse::<IpNet>().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()));
        network.map(|network| Self(network.trunc())).ok_or_else(|| ValueError::new("is no address and no network"))
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.0.to_string())
    }
}

/// Where a provider's API begins: scheme, host and path, without a slash at the end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) struct BaseUrl(pub(in crate::config) String);

impl SettingValue for BaseUrl {
    const EXPECTED: &'static str = "a URL such as \"https://api.example.com/v1\"";
    const SENSITIVE: bool = true;

    fn shape() -> SettingShape {
        SettingShape::Pattern("[Hh][Tt][Tt][Pp][Ss]?://[^@?#]+")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        // What looks like no URL at all may be a key.
        if text.contains(['@', '?', '#']) || !text.contains(['.', ':', '/']) {
            value_ref.hide();
        }
        let url: http::Uri = text.parse().map_err(|_| ValueError::new("is not a URL"))?;
        let Some(authority) = url.authority() else {
            return Err(ValueError::new("has no host"));
        };
        if authority.as_str().contains('@') {
            value_ref.hide();
            return Err(ValueError::hinting(
                "a URL may not hold a user or a password",
                "use `credential = \"env:NAME\"`",
            ));
        }
        if !matches!(url.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
            return Err(ValueError::new("is not an http or https URL"));
        }
        if url.query().is_some() || text.contains('#') {
            return Err(ValueError::new("may not hold a query or a fragment"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.0.clone())
    }
}

/// The URL of an HTTP proxy, which may hold a password where it is not written out in the file.
#[derive(Clone)]
pub(in crate::config) struct ProxyUrl(pub(in crate::config) Secret);

impl SettingValue for ProxyUrl {
    const EXPECTED: &'static str =
        "a URL such as \"http://proxy.example:3128\"; one with a user and a password as \"env:NAME\" or \"file:/path\"";
    const SENSITIVE: bool = true;

    fn shape() -> SettingShape {
        SettingShape::Pattern("[Hh][Tt][Tt][Pp]://[^@/?#]+/?")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        if text.contains('@') && !value_ref.is_reference() {
            value_ref.hide();
            return Err(ValueError::hinting(
                "a password may not be written out in the file",
                "put the whole URL where the gateway starts, and write \"env:NAME\" or \"file:/path\"",
            ));
        }
        let url: http::Uri = text.parse().map_err(|_| ValueError::new("is not a URL"))?;
        if url.scheme_str() != Some("http") {
            return Err(ValueError::hinting(
                "is not the URL of an HTTP proxy",
                "write http://HOST:PORT: proxies that speak TLS or SOCKS themselves are not supported",
            ));
        }
        if url.host().is_none_or(str::is_empty) {
            return Err(ValueError::new("has no host"));
        }
        if url.path_and_query().is_some_and(|path| path.as_str() != "/") || text.contains('#') {
            return Err(ValueError::new("is more than scheme, host and port"));
        }
        Ok(Self(Secret::new(text)))
    }

    fn show(&self) -> DisplayValue {
        // One with a password is a reference, of which nothing is shown.
        DisplayValue::Text(self.0.expose().to_owned())
    }
}

/// The URL of a store, which may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::config) struct StoreUrl(pub(in crate::config) String);

impl StoreUrl {
    /// The URL with what precedes an `@` masked.
    pub(in crate::config) fn masked(&self) -> String {
        match (self.0.find("://"), self.0.rfind('@')) {
            (Some(scheme), Some(at)) if scheme < at => {
                format!("{}{MASK}{}", &self.0[..scheme + 3], &self.0[at..])
            }
            _ => self.0.clone(),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl SettingValue for StoreUrl {
    const EXPECTED: &'static str = "\"memory:\", \"sqlite:PATH\" or \"postgres://…\"";

    const SENSITIVE: bool = true;

    fn shape() -> SettingShape {
        SettingShape::Pattern("(memory:|sqlite:.+|(postgres|postgresql)://.*)")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        if text.contains(['@', '?']) {
            value_ref.hide();
        }
        if StoreLocation::of_url(&text).is_none() {
            return Err(ValueError::new("is not the URL of a store we know"));
        }
        Ok(Self(text))
    }

    fn show(&self) -> DisplayValue {
        DisplayValue::Text(self.masked())
    }
}

/// The URL of what counts for several gateways, which may hold a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) struct SharedUrl(pub(in crate::config) StoreUrl);

impl SettingValue for SharedUrl {
    const EXPECTED: &'static str = "\"redis://HOST:PORT\", or \"rediss://HOST:PORT\" with TLS";

    const SENSITIVE: bool = true;

    fn shape() -> SettingShape {
        SettingShape::Pattern("rediss?://.+")
    }

    fn read(value_ref: &ConfigValueRef<'_>) -> Result<Self, ValueError> {
        let text = value_ref.text()?;
        if text.contains(['@', '?']) {
            value_ref.hide();
        }
        match StoreLocation::of_url(&text) {
            Some(StoreLocation::Redis(url)) if !url.ends_with("://") => Ok(Self(StoreUrl(url))),
            _ => Err(ValueError::new("is not the URL of a Redis or Valkey server")),
        }
    }

    fn show(&self) -> DisplayValue {
        self.0.show()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_store_url_is_never_shown() {
        let check = |url: &str, expected: &str| assert_eq!(StoreUrl(url.to_owned()).masked(), expected);
        check("postgres://me:hush@db/x", "postgres://********@db/x");
        check("redis://:hush@db", "redis://********@db");
        check("sqlite:a@b.db", "sqlite:a@b.db");
        check("memory:", "memory:");
    }
}
