//! The text that `serve` prints at its start: the address, generated secrets, and commands to paste.
//!
//! It is for people, so it goes to stderr. Every line fits 80 columns, and every command works as pasted.

use crate::domain::secret::Secret;
use std::fmt::Write;
use std::net::SocketAddr;

/// Secrets generated for this run, printed once.
pub struct GeneratedSecrets {
    /// The key of clients, if the configuration has none.
    pub key: Option<Secret>,
    /// The token of operators, if the configuration has none.
    pub admin_token: Option<Secret>,
}

/// The text for a gateway at `address` that serves `scheme`; `model` is the one in the examples.
pub fn banner(scheme: &str, address: SocketAddr, generated: &GeneratedSecrets, model: &str) -> String {
    let url = format!("{scheme}://{}", reachable(address));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\nTierway is serving at {url}/v1\n");
    if let Some(token) = &generated.admin_token {
        let _ = writeln!(text, "  admin token  {}", token.expose());
    }
    if let Some(key) = &generated.key {
        let _ = writeln!(text, "  key          {}", key.expose());
    }
    if generated.key.is_some() || generated.admin_token.is_some() {
        let _ = writeln!(text, "  (made for this run and shown only here)");
    }
    if let Some(key) = &generated.key {
        let _ = write!(text, "{}", snippets(&url, key, model));
    }
    let _ = writeln!(text, "\nMetrics: {url}/metrics   Stop: Ctrl-C");
    text
}

fn snippets(url: &str, key: &Secret, model: &str) -> String {
    format!(
        r#"
# Paste this into another terminal:

export OPENAI_BASE_URL={url}/v1
export OPENAI_API_KEY={key}

curl $OPENAI_BASE_URL/chat/completions \
  -H "Authorization: Bearer $OPENAI_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hi"}}]}}'

# Or, after `pip install openai`:

python3 - <<'END'
from openai import OpenAI
for part in OpenAI().chat.completions.create(
    model="{model}", stream=True,
    messages=[{{"role": "user", "content": "Hi"}}],
):
    print(part.choices[0].delta.content or "", end="", flush=True)
print()
END
"#,
        key = key.expose()
    )
}

/// An address to connect to: a wildcard address is replaced by loopback.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::{new_admin_token, new_key};

    #[test]
    fn every_line_fits_eighty_columns_with_the_longest_address() {
        let address: SocketAddr = "255.255.255.255:65535".parse().expect("an address");
        let key = new_key("demo", &[1; 32]);
        let token = new_admin_token(&[2; 32]);
        let text = banner("https", address, &GeneratedSecrets { key: Some(key), admin_token: Some(token) }, "auto");
        for line in text.lines() {
            assert!(line.chars().count() < 80, "{} columns: {line}", line.chars().count());
        }
    }

    #[test]
    fn an_unspecified_address_is_shown_as_loopback() {
        let check = |listen: &str, expected: &str| {
            assert_eq!(reachable(listen.parse().expect("an address")).to_string(), expected);
        };
        check("0.0.0.0:8080", "127.0.0.1:8080");
        check("[::]:8080", "[::1]:8080");
        check("10.1.2.3:80", "10.1.2.3:80");
    }
}
