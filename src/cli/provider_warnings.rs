//! What is odd about where a provider is asked and with what: it is valid, and rarely meant.
//!
//! `check` and `init` show it. Nothing is asked over the network here, and no credential is shown. `check --live` asks.
//!
//! Start reading at [`of_base_url`].

use crate::config::{ProtocolName, ProviderTransport, Snapshot};
use crate::domain::secret::Secret;
use http::Uri;

/// Where hosts serve their API that serve it nowhere else; of a host beginning with a dot, any name may come before it.
const PLACES: [(&str, &str); 20] = [
    ("api.openai.com", "/v1"),
    ("api.groq.com", "/openai/v1"),
    ("api.together.xyz", "/v1"),
    ("api.together.ai", "/v1"),
    ("api.mistral.ai", "/v1"),
    ("openrouter.ai", "/api/v1"),
    ("api.fireworks.ai", "/inference/v1"),
    ("api.x.ai", "/v1"),
    ("api.cerebras.ai", "/v1"),
    ("api.sambanova.ai", "/v1"),
    ("api.moonshot.ai", "/v1"),
    ("api.moonshot.cn", "/v1"),
    ("api.hyperbolic.xyz", "/v1"),
    ("api.novita.ai", "/v3/openai"),
    ("api.deepinfra.com", "/v1/openai"),
    ("api.anthropic.com", "/v1"),
    ("integrate.api.nvidia.com", "/v1"),
    ("router.huggingface.co", "/v1"),
    ("generativelanguage.googleapis.com", "/v1beta/openai"),
    (".openai.azure.com", "/openai/v1"),
];
/// Hosts that serve their API without a path.
const WITHOUT_PATH: [&str; 2] = ["api.deepseek.com", "api.perplexity.ai"];
/// What no base URL ends in: the paths of endpoints, which are appended to it.
const ENDPOINTS: [&str; 7] =
    ["/chat/completions", "/completions", "/embeddings", "/models", "/responses", "/messages", "/chat"];
/// How the secrets of this gateway's own clients and operators begin.
const OUR_SECRETS: [&str; 3] = ["tw_", "twa_", "twv_"];

/// One warning for each oddity of the providers of `snapshot`, each with the setting that it is about.
pub(super) fn of_snapshot(snapshot: &Snapshot) -> Vec<String> {
    let mut warnings = Vec::new();
    for provider in &snapshot.providers {
        let ProviderTransport::Network(network) = &provider.kind else { continue };
        let setting = format!("providers.{}", provider.name);
        let base_url = match network.protocol {
            ProtocolName::Anthropic => with_version(&network.base_url),
            _ => network.base_url.clone(),
        };
        warnings.extend(of_base_url(&base_url).iter().map(|odd| format!("{setting}.base_url: {odd}")));
        for credential in network.credentials.iter().filter(|credential| is_ours(&credential.secret)) {
            warnings.push(format!("{setting}.credential: {} {OURS}", credential.name));
        }
    }
    warnings
}

/// A base URL to which the version is added, as it is asked.
fn with_version(base_url: &str) -> String {
    let base_url = base_url.trim_end_matches('/');
    if base_url.ends_with("/v1") || base_url.contains('?') { base_url.to_owned() } else { format!("{base_url}/v1") }
}

/// What is said of a secret of ours in a provider's place.
const OURS: &str = "begins as a key of a Tierway gateway does, and not as a provider's key: right only where \
                               this provider is another gateway";

/// Whether `secret` looks like one that clients or operators of a gateway present.
pub(super) fn is_ours(secret: &Secret) -> bool {
    OUR_SECRETS.iter().any(|prefix| secret.expose().starts_with(prefix))
}

/// What is odd about a provider's base URL, each in a sentence that says what to write.
pub(super) fn of_base_url(base_url: &str) -> Vec<String> {
    let Ok(url) = base_url.parse::<Uri>() else { return Vec::new() };
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else { return Vec::new() };
    let (host, path) = (authority.host().to_ascii_lowercase(), url.path().trim_end_matches('/'));
    let origin = format!("{scheme}://{authority}");
    let mut odd = Vec::new();
    if url.query().is_some() {
        odd.push("it holds a query, which belongs to single requests: remove what follows the `?`".to_owned());
    }
    if let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| path.ends_with(**endpoint)) {
        let base = path.trim_end_matches(endpoint);
        odd.push(format!(
            "it ends in the path of an endpoint, and the paths of endpoints are appended to it: write {origin}{base}"
        ));
    } else if let Some((_, place)) = PLACES.iter().find(|(known, place)| is_host(&host, known) && path != *place) {
        odd.push(format!("the API of this host is known to be at {origin}{place}"));
    } else if path.is_empty() && !WITHOUT_PATH.contains(&host.as_str()) {
        odd.push(format!(
            "it has no path, and most hosts serve their API below /v1: write {origin}/v1 if this one does"
        ));
    }
    if path.contains("//") {
        odd.push("its path holds two slashes in a row".to_owned());
    }
    if path.contains("/v1/v1") {
        odd.push("its path holds /v1 twice".to_owned());
    }
    if scheme == "http" && !is_loopback(&host) {
        odd.push("http is not encrypted: prompts and credentials can be read on the way to another machine".to_owned());
    }
    odd
}

fn is_host(host: &str, known: &str) -> bool {
    host == known || (known.starts_with('.') && host.ends_with(known))
}

fn is_loopback(host: &str) -> bool {
    let name = host.trim_matches(['[', ']']);
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigSource, ProcessEnvironment, load};

    #[test]
    fn what_is_usual_is_not_odd() {
        for url in [
            "https://api.openai.com/v1",
            "https://api.deepseek.com",
            "https://api.deepseek.com/v1",
            "https://api.groq.com/openai/v1",
            "https://openrouter.ai/api/v1/",
            "https://mine.openai.azure.com/openai/v1",
            "https://unknown.example/serving/v2",
            "http://127.0.0.1:8000/v1",
            "http://127.8.9.10:8000/v1",
            "http://localhost:11434/v1",
            "http://[::1]:8000/v1",
            "HTTPS://API.OpenAI.com/v1",
        ] {
            assert_eq!(of_base_url(url), Vec::<String>::new(), "{url}");
        }
    }

    #[test]
    fn what_is_odd_is_said_with_what_to_write() {
        let check = |url: &str, expected: &[&str]| {
            let odd = of_base_url(url);
            assert_eq!(odd.len(), expected.len(), "{url}: {odd:?}");
            for (said, wanted) in odd.iter().zip(expected) {
                assert!(said.contains(wanted), "{url}: {said}");
            }
        };
        check("https://api.openai.com", &["known to be at https://api.openai.com/v1"]);
        check("https://api.openai.com/", &["known to be at https://api.openai.com/v1"]);
        check("https://api.groq.com/v1", &["known to be at https://api.groq.com/openai/v1"]);
        check("https://unknown.example", &["write https://unknown.example/v1 if"]);
        check("http://127.0.0.1:8000/", &["write http://127.0.0.1:8000/v1 if"]);
        check("https://x.openai.azure.com", &["known to be at https://x.openai.azure.com/openai/v1"]);
        check("https://api.openai.com/v1/chat/completions", &["write https://api.openai.com/v1"]);
        check("https://a.example:8443/v1/models/", &["write https://a.example:8443/v1"]);
        check("https://a.example/v1/embeddings", &["the path of an endpoint"]);
        check("https://a.example//v1", &["two slashes"]);
        check("https://a.example/v1/v1", &["/v1 twice"]);
        check("https://a.example/v1?api-version=1", &["holds a query"]);
        check("http://vllm.internal:8000/v1", &["not encrypted"]);
        check("http://localhost.evil.example/v1", &["not encrypted"]);
        check("http://api.openai.com/v1/chat/completions", &["the path of an endpoint", "not encrypted"]);
    }

    #[test]
    fn a_key_of_ours_is_named_by_its_variable_and_never_shown() {
        let check = |secret: &str, expected: bool| assert_eq!(is_ours(&Secret::new(secret)), expected, "{secret}");
        check("tw_demo_0123", true);
        check("twa_0123", true);
        check("sk-tw_", false);
        check("", false);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key");
        std::fs::write(&file, "tw_demo_canary").expect("it can be written");
        let text = format!(
            "[providers.p]\nprotocol = \"openai\"\nbase_url = \"https://a.example/v1\"\ncredential = \"file:{}\"\n\
             [models.m]\ndeployments = [{{ provider = \"p\" }}]\n",
            file.display()
        );
        let source = ConfigSource::File { path: "tierway.toml".into(), text };
        let snapshot = load(&source, &ProcessEnvironment, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        let warnings = of_snapshot(&snapshot);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("providers.p.credential: file:") && !warnings[0].contains("canary"));
    }
}
