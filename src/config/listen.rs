//! Where a gateway listens: an address and a port, or the file of a Unix socket.
//!
//! It is read in one way wherever it is written: in the file, in a variable, on the command line. No name is ever
//! looked up: `localhost` is this machine (RFC 6761), and another name could stand for addresses that nobody checked.
//!
//! Start reading at [`ListenAddress`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How the path of a socket file begins.
const UNIX: &str = "unix:";
/// The longest path of a socket file on Linux, in bytes; the system's structure has room for one more.
const LONGEST_PATH: usize = 107;

/// An address that connections are accepted at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddress {
    /// `127.0.0.1:8080`, `[::]:8080`
    Ip(SocketAddr),
    /// `localhost:8080`: 127.0.0.1.
    Localhost(u16),
    /// `:8080`: every address of this machine, over IPv6 and IPv4.
    EveryInterface(u16),
    /// `unix:/run/tierway.sock`: only processes of this machine that may open the file.
    Unix(PathBuf),
}

/// Why a text is no address to listen at; it never repeats the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}: {hint}")]
pub struct ListenAddressError {
    /// What is wrong.
    pub message: &'static str,
    /// What to write instead.
    pub hint: &'static str,
}

impl ListenAddress {
    /// What to write.
    pub const EXPECTED: &'static str =
        "an address and a port, such as \"127.0.0.1:8080\", \"localhost:8080\" or \":8080\", or \"unix:/path\"";

    /// Whether nobody can connect from another machine.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Ip(address) => address.ip().is_loopback(),
            Self::Localhost(_) | Self::Unix(_) => true,
            Self::EveryInterface(_) => false,
        }
    }

    /// The socket addresses that it may be bound as, the preferred one first; none for a socket file.
    pub fn socket_addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Ip(address) => vec![*address],
            Self::Localhost(port) => vec![(Ipv4Addr::LOCALHOST, *port).into()],
            // A machine without IPv6 has the second one only.
            Self::EveryInterface(port) => {
                vec![(Ipv6Addr::UNSPECIFIED, *port).into(), (Ipv4Addr::UNSPECIFIED, *port).into()]
            }
            Self::Unix(_) => Vec::new(),
        }
    }

    /// Where a client on this machine connects to; `None` for a socket file.
    pub fn reachable(&self) -> Option<SocketAddr> {
        let address = match self {
            // IPv4 is served too, and more clients try it first.
            Self::EveryInterface(port) => (Ipv4Addr::LOCALHOST, *port).into(),
            other => *other.socket_addresses().first()?,
        };
        Some(match address.ip() {
            ip if !ip.is_unspecified() => address,
            IpAddr::V4(_) => (Ipv4Addr::LOCALHOST, address.port()).into(),
            IpAddr::V6(_) => (Ipv6Addr::LOCALHOST, address.port()).into(),
        })
    }

    /// The path of its socket file, if it is one.
    pub fn socket_file(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Ip(_) | Self::Localhost(_) | Self::EveryInterface(_) => None,
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Localhost(port) => write!(f, "localhost:{port}"),
            Self::EveryInterface(port) => write!(f, ":{port}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return socket_file(path);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        match text.rsplit_once(':') {
            Some(("", digits)) => Ok(Self::EveryInterface(port(digits)?)),
            Some((host, digits)) if host.eq_ignore_ascii_case("localhost") => Ok(Self::Localhost(port(digits)?)),
            _ => Err(no_address(text)),
        }
    }
}

fn port(digits: &str) -> Result<u16, ListenAddressError> {
    let number = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    number.ok_or(ListenAddressError {
        message: "has no port after the colon",
        hint: "a port is a number from 0 to 65535; with 0 the system chooses one",
    })
}

fn socket_file(path: &str) -> Result<ListenAddress, ListenAddressError> {
    let wrong = |message| Err(ListenAddressError { message, hint: "write the file as unix:/run/tierway/tierway.sock" });
    // `unix:///run/x.sock` is how other programs write it.
    let path = match path.strip_prefix("//") {
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    };
    if !path.starts_with('/') {
        return wrong("is no absolute path of a socket file");
    }
    if path.ends_with('/') || path.contains('\0') {
        return wrong("is no path of a file");
    }
    if path.len() > LONGEST_PATH {
        return wrong("is longer than the 107 bytes that the system allows for a socket file");
    }
    Ok(ListenAddress::Unix(path.into()))
}

/// What was meant by something that is no address at all.
fn no_address(text: &str) -> ListenAddressError {
    let wrong = |message, hint| ListenAddressError { message, hint };
    if text.contains("://") {
        return wrong("is a URL", "write only its host and port, such as 127.0.0.1:8080");
    }
    if text.starts_with(['/', '.']) {
        return wrong("is a path", "write a socket file as unix:/run/tierway/tierway.sock");
    }
    let host = text.trim_matches(['[', ']']);
    if host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost") {
        return wrong("has no port", "write one after a colon, such as 127.0.0.1:8080 or [::1]:8080");
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return wrong("is a port alone", "write 127.0.0.1:8080 for this machine, or :8080 for every address it has");
    }
    match text.rsplit_once(':') {
        Some((host, digits)) if port(digits).is_ok() && host.contains(|c: char| c.is_ascii_alphabetic()) => wrong(
            "names a host, and names are not looked up here",
            "write an IP address of this machine, localhost, or :8080 for every address it has",
        ),
        _ => wrong(
            "is not an IP address with a port",
            "write one such as 127.0.0.1:8080, localhost:8080, :8080 or unix:/path",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_shown_as_it_was_written() {
        let check = |text: &str, loopback: bool, bound: &[&str], reachable: Option<&str>| {
            let address: ListenAddress = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(address.to_string(), text);
            assert_eq!(address.is_loopback(), loopback, "{text}");
            let addresses: Vec<String> = address.socket_addresses().iter().map(ToString::to_string).collect();
            assert_eq!(addresses, bound, "{text}");
            assert_eq!(address.reachable().map(|at| at.to_string()).as_deref(), reachable, "{text}");
        };
        check("127.0.0.1:8080", true, &["127.0.0.1:8080"], Some("127.0.0.1:8080"));
        check("10.1.2.3:80", false, &["10.1.2.3:80"], Some("10.1.2.3:80"));
        check("0.0.0.0:0", false, &["0.0.0.0:0"], Some("127.0.0.1:0"));
        check("[::1]:8080", true, &["[::1]:8080"], Some("[::1]:8080"));
        check("[::]:8080", false, &["[::]:8080"], Some("[::1]:8080"));
        check("localhost:8080", true, &["127.0.0.1:8080"], Some("127.0.0.1:8080"));
        check(":8080", false, &["[::]:8080", "0.0.0.0:8080"], Some("127.0.0.1:8080"));
        check("unix:/run/a b.sock", true, &[], None);
    }

    #[test]
    fn other_spellings_mean_the_same() {
        let check = |text: &str, expected: &str| {
            assert_eq!(text.parse::<ListenAddress>().map(|address| address.to_string()).as_deref(), Ok(expected));
        };
        check("LocalHost:1", "localhost:1");
        check("unix:///run/x.sock", "unix:/run/x.sock");
        check("unix://run/x.sock", "unix://run/x.sock");
    }

    #[test]
    fn what_is_no_address_is_explained() {
        let check = |text: &str, message: &str| {
            assert_eq!(text.parse::<ListenAddress>().map_err(|error| error.message), Err(message), "{text}");
        };
        check("", "is not an IP address with a port");
        check("nowhere", "is not an IP address with a port");
        check("127.0.0.1", "has no port");
        check("::1", "has no port");
        check("[::1]", "has no port");
        check("localhost", "has no port");
        check("localhost:", "has no port after the colon");
        check("localhost:http", "has no port after the colon");
        check(":65536", "has no port after the colon");
        check(":+80", "has no port after the colon");
        check("8080", "is a port alone");
        check("http://127.0.0.1:8080", "is a URL");
        check("gateway.example:8080", "names a host, and names are not looked up here");
        check("/run/x.sock", "is a path");
        check("unix:x.sock", "is no absolute path of a socket file");
        check("unix:", "is no absolute path of a socket file");
        check("unix:@abstract", "is no absolute path of a socket file");
        check("unix:/run/", "is no path of a file");
        let long = format!("unix:/{}", "x".repeat(107));
        check(&long, "is longer than the 107 bytes that the system allows for a socket file");
        assert!(long[..long.len() - 1].parse::<ListenAddress>().is_ok());
    }
}
