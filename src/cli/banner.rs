//! The text that `serve` prints at its start: the address, generated secrets, and commands to paste.
//!
//! It is for people, so it goes to stderr. Every line fits 80 columns, and every command works as pasted.

use crate::config::{ListenAddress, MetricsAccess};
use crate::domain::secret::Secret;
use std::fmt::Write;

/// Secrets generated for this run, printed once.
pub struct GeneratedSecrets {
    /// The key of clients, if the configuration has none.
    pub key: Option<Secret>,
    /// The token of operators, if the configuration has none.
    pub admin_token: Option<Secret>,
}

/// Where a gateway is.
pub struct GatewayAddresses<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Where clients are served.
    pub clients: &'a ListenAddress,
    /// Where operators are: the same, or `admin_listen`.
    pub operators: &'a ListenAddress,
    /// The URL of its page, if it has one.
    pub dashboard: Option<&'a str>,
}

/// The text for a gateway at `addresses`; `model` is the one in the examples.
pub fn banner(
    addresses: &GatewayAddresses<'_>,
    generated: &GeneratedSecrets,
    metrics: MetricsAccess,
    model: &str,
) -> String {
    let &GatewayAddresses { scheme, clients: address, operators, dashboard } = addresses;
    let url = local_url(scheme, address);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match &url {
        Some(url) => writeln!(text, "\nTierway is serving at {url}/v1\n"),
        None => writeln!(text, "\nTierway is serving at {address}\n"),
    };
    if let Some(dashboard) = dashboard {
        let once = if dashboard.contains('#') { "  (signs one browser in, once)\n" } else { "" };
        let _ = writeln!(text, "  dashboard    {dashboard}\n{once}");
    }
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
        let _ = write!(text, "{}", snippets(url.as_deref(), scheme, address, key, model));
    }
    let (option, origin) = match (local_url(scheme, operators), operators.socket_file()) {
        (None, Some(path)) => (format!(" --unix-socket '{}'", path.display()), format!("{scheme}://localhost")),
        (url, _) => (String::new(), url.unwrap_or_default()),
    };
    let _ = match (metrics, &generated.admin_token) {
        (MetricsAccess::Open, _) => writeln!(text, "\nMetrics: {origin}/metrics   Stop: Ctrl-C"),
        (MetricsAccess::Token, None) => {
            writeln!(text, "\nMetrics, with a token: {origin}/metrics   Stop: Ctrl-C")
        }
        (MetricsAccess::Token, Some(token)) => writeln!(
            text,
            "\n# Its metrics, and `tierway status`, with the admin token:\n\n\
             export TIERWAY_ADMIN_TOKEN={}\n\n\
             curl{option} {origin}/metrics \\\n  -H \"Authorization: Bearer $TIERWAY_ADMIN_TOKEN\"\n\n\
             Stop: Ctrl-C",
            token.expose()
        ),
    };
    text
}

/// The commands to paste. Clients without a setting for a socket's file are given none.
fn snippets(url: Option<&str>, scheme: &str, address: &ListenAddress, key: &Secret, model: &str) -> String {
    let (base_url, option) = match (url, address.socket_file()) {
        (None, Some(path)) => (format!("{scheme}://localhost/v1"), format!(" --unix-socket '{}'", path.display())),
        (url, _) => (format!("{}/v1", url.unwrap_or_default()), String::new()),
    };
    let key = key.expose();
    let curl = format!(
        r#"
# Paste this into another terminal:

export OPENAI_BASE_URL={base_url}
export OPENAI_API_KEY={key}

curl{option} $OPENAI_BASE_URL/chat/completions \
  -H "Authorization: Bearer $OPENAI_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hi"}}]}}'
"#
    );
    if url.is_none() {
        return curl;
    }
    format!(
        r#"{curl}
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
"#
    )
}

/// Where a browser on this machine finds the dashboard of operators at `address`: the link that signs one in, if there is a
/// `token` for that. `None` if it is the file of a socket.
pub(super) fn dashboard_url(scheme: &str, address: &ListenAddress, token: Option<&Secret>) -> Option<String> {
    let url = local_url(scheme, address)?;
    Some(match token {
        // A browser does not send what follows the `#`.
        Some(token) => format!("{url}/#{}", token.expose()),
        None => format!("{url}/"),
    })
}

/// Where a client on this machine finds a gateway at `address`; `None` if that is the file of a socket.
pub(super) fn local_url(scheme: &str, address: &ListenAddress) -> Option<String> {
    address.reachable().map(|address| format!("{scheme}://{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::{new_admin_token, new_key, new_sign_in_token};

    fn at<'a>(scheme: &'a str, clients: &'a ListenAddress, operators: &'a ListenAddress) -> GatewayAddresses<'a> {
        GatewayAddresses { scheme, clients, operators, dashboard: None }
    }

    #[test]
    fn every_line_fits_eighty_columns_with_the_longest_address() {
        let address: ListenAddress = "255.255.255.255:65535".parse().expect("an address");
        let key = new_key("demo", &[1; 32]);
        let token = new_admin_token(&[2; 32]);
        let generated = GeneratedSecrets { key: Some(key), admin_token: Some(token) };
        let link = dashboard_url("https", &address, Some(&new_sign_in_token(&[3; 32])));
        for metrics in [MetricsAccess::Token, MetricsAccess::Open] {
            let text = banner(
                &GatewayAddresses { dashboard: link.as_deref(), ..at("https", &address, &address) },
                &generated,
                metrics,
                "auto",
            );
            for line in text.lines() {
                assert!(line.chars().count() < 80, "{} columns: {line}", line.chars().count());
            }
        }
    }

    #[test]
    fn what_reads_the_metrics_can_be_pasted() {
        let address: ListenAddress = "127.0.0.1:8080".parse().expect("an address");
        let said = |admin_token: Option<Secret>, metrics| {
            banner(&at("http", &address, &address), &GeneratedSecrets { key: None, admin_token }, metrics, "auto")
        };
        let token = || Some(Secret::new("twa_x"));
        let text = said(token(), MetricsAccess::Token);
        let pasted = "export TIERWAY_ADMIN_TOKEN=twa_x\n\ncurl http://127.0.0.1:8080/metrics \\\n  \
                      -H \"Authorization: Bearer $TIERWAY_ADMIN_TOKEN\"\n";
        assert!(text.contains(pasted), "{text}");
        assert!(said(None, MetricsAccess::Token).contains("Metrics, with a token: http://127.0.0.1:8080/metrics"));
        assert!(said(token(), MetricsAccess::Open).contains("\nMetrics: http://127.0.0.1:8080/metrics"));
        let elsewhere: ListenAddress = "127.0.0.1:9091".parse().expect("an address");
        let none = GeneratedSecrets { key: None, admin_token: None };
        let text = banner(&at("http", &address, &elsewhere), &none, MetricsAccess::Token, "auto");
        assert!(text.contains("Metrics, with a token: http://127.0.0.1:9091/metrics"), "{text}");
    }

    #[test]
    fn a_page_has_a_url_and_a_socket_file_has_none() {
        let at = |address: &str, token: Option<&Secret>| {
            dashboard_url("http", &address.parse::<ListenAddress>().expect("an address"), token)
        };
        assert_eq!(at("127.0.0.1:8080", None).as_deref(), Some("http://127.0.0.1:8080/"));
        let token = Secret::new("twl_x");
        assert_eq!(at("[::]:8080", Some(&token)).as_deref(), Some("http://[::1]:8080/#twl_x"));
        assert_eq!(at("unix:/run/tierway.sock", Some(&token)), None);
    }

    #[test]
    fn a_socket_file_is_named_to_curl() {
        let address: ListenAddress = "unix:/run/tierway.sock".parse().expect("an address");
        let text = banner(
            &at("http", &address, &address),
            &GeneratedSecrets { key: Some(new_key("demo", &[1; 32])), admin_token: None },
            MetricsAccess::Token,
            "m",
        );
        assert!(text.contains("serving at unix:/run/tierway.sock\n"), "{text}");
        assert!(text.contains("curl --unix-socket '/run/tierway.sock' $OPENAI_BASE_URL/chat/completions"), "{text}");
        assert!(text.contains("export OPENAI_BASE_URL=http://localhost/v1\n") && !text.contains("python3"), "{text}");
    }
}
