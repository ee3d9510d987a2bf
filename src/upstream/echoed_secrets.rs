//! A provider's bytes without the credentials that it was sent: hosts, and proxies before them, repeat a request's
//! headers in errors and in answers that are meant for tests.
//!
//! What is found is masked, also where it is cut between two reads. It is found as it was sent, and as usual encoders of
//! JSON and of URLs write it; not in base64, not with every letter escaped, and not spread over several frames of a
//! stream. It must never delay a byte that cannot be part of a secret.
//!
//! Start reading in [`SecretFilter::pass`].

use super::NetworkSetup;
use crate::domain::secret::{MASK, Secret, is_random};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use memchr::memmem::Finder;
use std::sync::Arc;

/// The shortest secret that is looked for, in bytes. Servers without credentials are given words such as `EMPTY` or
/// `no-key-required`, and an answer may hold those.
const SHORTEST: usize = 16;

/// How an encoder of JSON writes what it does not write as it is.
struct JsonEscapes {
    /// With a backslash before it.
    backslash: &'static str,
    /// By its number.
    number: &'static str,
    /// The digits of the number are capitals.
    capitals: bool,
}

const JSON_ENCODERS: [JsonEscapes; 5] = [
    // Most libraries.
    JsonEscapes { backslash: "\"\\", number: "", capitals: false },
    // PHP.
    JsonEscapes { backslash: "\"\\/", number: "", capitals: false },
    // Go and Rails: safe inside HTML.
    JsonEscapes { backslash: "\"\\", number: "<>&", capitals: false },
    // Gson.
    JsonEscapes { backslash: "\"\\", number: "<>&='", capitals: false },
    // .NET.
    JsonEscapes { backslash: "\\", number: "\"<>&'+`", capitals: true },
];

impl JsonEscapes {
    fn write(&self, c: char) -> String {
        match c {
            _ if self.backslash.contains(c) => format!("\\{c}"),
            _ if !self.number.contains(c) => c.to_string(),
            _ if self.capitals => format!("\\u{:04X}", u32::from(c)),
            _ => format!("\\u{:04x}", u32::from(c)),
        }
    }
}

/// How a part of a URL is written.
fn percent_encoded(secret: &str) -> String {
    let write = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    secret.bytes().map(write).collect()
}

/// The same with digits that are no capitals.
fn percent_encoded_small(secret: &str) -> String {
    let mut parts = percent_encoded(secret);
    let escapes: Vec<usize> = parts.match_indices('%').map(|(at, _)| at).collect();
    escapes.iter().for_each(|at| parts[*at..at + 3].make_ascii_lowercase());
    parts
}

/// `secret` as it is, and as encoders write it. Most secrets are letters, digits, `-` and `_`, which all of them leave as
/// they are: only others cost more than one search.
fn spellings(secret: &str) -> Vec<String> {
    let in_json = |escapes: &JsonEscapes| secret.chars().map(|c| escapes.write(c)).collect();
    let in_urls = [percent_encoded(secret), percent_encoded_small(secret)];
    [secret.to_owned()].into_iter().chain(JSON_ENCODERS.iter().map(in_json)).chain(in_urls).collect()
}

/// The secrets that one provider is sent.
pub(super) struct ProviderSecrets(Vec<Finder<'static>>);

impl ProviderSecrets {
    /// The credentials of `setup`, and the values of its headers that look like one; `None` where it has none.
    pub(super) fn of(setup: &NetworkSetup) -> Option<Arc<Self>> {
        let credentials = setup.credentials.iter().map(Secret::expose);
        // `Basic ...`: what follows the scheme is the secret.
        let value = |text: &'_ Secret| text.expose().rsplit(' ').next().map(str::to_owned);
        let headers = setup.fields.headers.iter().filter_map(|(_, text)| value(text)).filter(|text| is_random(text));
        let mut texts: Vec<String> = credentials.map(str::to_owned).chain(headers).collect();
        texts.retain(|text| text.len() >= SHORTEST);
        texts = texts.iter().flat_map(|text| spellings(text)).collect();
        // One that holds another is masked as a whole.
        texts.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        texts.dedup();
        let finders: Vec<_> = texts.iter().map(|text| Finder::new(text.as_bytes()).into_owned()).collect();
        (!finders.is_empty()).then(|| Arc::new(Self(finders)))
    }

    /// Masks every header whose value holds one of them.
    pub(super) fn mask_headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            if self.0.iter().any(|secret| secret.find(value.as_bytes()).is_some()) {
                *value = HeaderValue::from_static(MASK);
            }
        }
    }

    fn masked(&self, bytes: Bytes) -> Bytes {
        self.0.iter().fold(bytes, |bytes, secret| {
            if secret.find(&bytes).is_none() {
                return bytes;
            }
            let mut masked = Vec::with_capacity(bytes.len());
            let mut at = 0;
            for found in secret.find_iter(&bytes) {
                masked.extend_from_slice(&bytes[at..found]);
                masked.extend_from_slice(MASK.as_bytes());
                at = found + secret.needle().len();
            }
            masked.extend_from_slice(&bytes[at..]);
            masked.into()
        })
    }

    /// How many bytes of `bytes` may be passed on: those before what may be the beginning of a secret, and before a
    /// whole one that reaches into it.
    fn passable(&self, bytes: &[u8]) -> usize {
        let begun = self.begun_at_end(bytes);
        let mut end = bytes.len() - begun;
        if begun == 0 {
            return end;
        }
        for secret in self.0.iter().cycle().take(self.0.len() * self.0.len()) {
            let length = secret.needle().len();
            end = secret.find_iter(bytes).find(|at| *at < end && at + length > end).unwrap_or(end);
        }
        end
    }

    /// How many bytes at the end of `bytes` may be the beginning of one of them.
    fn begun_at_end(&self, bytes: &[u8]) -> usize {
        let Some(last) = bytes.last() else { return 0 };
        let begun = self.0.iter().filter_map(|secret| {
            let secret = secret.needle();
            // The end of a frame or of a document is in none.
            memchr::memchr(*last, secret)?;
            (1..secret.len().min(bytes.len() + 1)).rev().find(|length| bytes.ends_with(&secret[..*length]))
        });
        begun.max().unwrap_or(0)
    }
}

/// What one reply's bytes pass through.
pub(super) struct SecretFilter {
    secrets: Arc<ProviderSecrets>,
    /// The end of the last read, where it may be the beginning of a secret.
    held: Bytes,
    /// Nothing more will come.
    pub(super) ended: bool,
}

impl SecretFilter {
    pub(super) fn new(secrets: Arc<ProviderSecrets>) -> Self {
        Self { secrets, held: Bytes::new(), ended: false }
    }

    /// What of `chunk`, and of the reads before it, may be passed on; empty where that is nothing yet.
    pub(super) fn pass(&mut self, chunk: Bytes) -> Bytes {
        let mut all = if self.held.is_empty() { chunk } else { [&self.take_held()[..], &chunk].concat().into() };
        self.held = all.split_off(self.secrets.passable(&all));
        self.secrets.masked(all)
    }

    /// What was held back, as it came.
    pub(super) fn take_held(&mut self) -> Bytes {
        std::mem::take(&mut self.held)
    }

    /// What was held back: nothing follows.
    pub(super) fn end(&mut self) -> Bytes {
        self.ended = true;
        let held = self.take_held();
        self.secrets.masked(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{ConnectionSetup, FieldSetup, HostProtocol};
    use http::HeaderName;

    const ONE: &str = "sk-live-0123456789abcdef";
    const LONGER: &str = "sk-live-0123456789abcdefgh";

    fn secrets(credentials: &[&str], headers: &[(&'static str, &str)]) -> Option<Arc<ProviderSecrets>> {
        let named = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), Secret::new(*value));
        let headers = headers.iter().map(named).collect();
        ProviderSecrets::of(&NetworkSetup {
            api: HostProtocol::OpenAi,
            base_url: "http://127.0.0.1/v1".into(),
            credentials: credentials.iter().map(|text| Secret::new(*text)).collect(),
            http2: false,
            finish_reason_optional: false,
            skip_malformed_frames: false,
            max_completion_tokens: false,
            asks_usage: true,
            fields: FieldSetup { headers, ..FieldSetup::default() },
            connection: ConnectionSetup::default(),
        })
    }

    /// What `reads` become, one after the other.
    fn passed(secrets: &Arc<ProviderSecrets>, reads: &[&[u8]]) -> String {
        let mut filter = SecretFilter::new(secrets.clone());
        let mut all = Vec::new();
        for read in reads {
            all.extend_from_slice(&filter.pass(Bytes::copy_from_slice(read)));
        }
        all.extend_from_slice(&filter.end());
        String::from_utf8(all).expect("it is text")
    }

    #[test]
    fn a_secret_is_masked_wherever_it_is_cut() {
        let secrets = secrets(&[ONE, LONGER], &[]).expect("there are some");
        let text =
            format!("{{\"a\":\"Bearer {ONE}\",\"b\":\"{LONGER}{ONE}\",\"c\":\"sk-live-\",\"d\":\"sk-sk-live-\"}}");
        let expected =
            "{\"a\":\"Bearer ********\",\"b\":\"****************\",\"c\":\"sk-live-\",\"d\":\"sk-sk-live-\"}";
        assert_eq!(passed(&secrets, &[text.as_bytes()]), expected);
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let reads = [&text[..first], &text[first..second], &text[second..]].map(str::as_bytes);
                assert_eq!(passed(&secrets, &reads), expected, "cut at {first} and {second}");
            }
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(passed(&secrets, &bytes), expected);
    }

    #[test]
    fn secrets_that_overlap_are_masked_as_well() {
        let (one, other) = ("abcabcabcabcabcabc", "cabcabcabcabcabcXYZ");
        let secrets = secrets(&[one, other], &[]).expect("there are some");
        for text in
            [one.to_owned(), format!("{one}abc"), format!("<{one}>"), format!("{one}abcXYZ"), format!("ab{other}")]
        {
            for first in 0..=text.len() {
                let reads = [&text[..first], &text[first..]].map(str::as_bytes);
                let shown = passed(&secrets, &reads);
                assert!(!shown.contains(one) && !shown.contains(other), "{text} cut at {first}: {shown}");
            }
        }
    }

    #[test]
    fn a_secret_is_masked_as_encoders_of_json_and_of_urls_write_it() {
        const ODD: &str = r#"a+b/c=d&e<f>g"h\i'j-k_l.m~n"#;
        let secrets = secrets(&[ODD, ONE], &[]).expect("there are some");
        for written in [
            serde_json::to_string(ODD).expect("it is text"),
            r#""a+b\/c=d&e<f>g\"h\\i'j-k_l.m~n""#.to_owned(),
            r#""a+b/c=d\u0026e\u003cf\u003eg\"h\\i'j-k_l.m~n""#.to_owned(),
            r#""a+b/c\u003dd\u0026e\u003cf\u003eg\"h\\i\u0027j-k_l.m~n""#.to_owned(),
            r#""a\u002Bb/c=d\u0026e\u003Cf\u003Eg\u0022h\\i\u0027j-k_l.m~n""#.to_owned(),
            r#""a%2Bb%2Fc%3Dd%26e%3Cf%3Eg%22h%5Ci%27j-k_l.m~n""#.to_owned(),
            r#""a%2bb%2fc%3dd%26e%3cf%3eg%22h%5ci%27j-k_l.m~n""#.to_owned(),
        ] {
            for cut in 0..=written.len() {
                let reads = [&written[..cut], &written[cut..]].map(str::as_bytes);
                assert_eq!(passed(&secrets, &reads), "\"********\"", "{written} cut at {cut}");
            }
        }
        assert_eq!(secrets.0.len(), 9, "one that all write alike is looked for once, the other in eight ways");
    }

    #[test]
    fn only_what_may_become_a_secret_is_held_back() {
        let secrets = secrets(&[ONE], &[]).expect("there are some");
        let check = |chunk: &str, expected: &str| {
            let mut filter = SecretFilter::new(secrets.clone());
            assert_eq!(filter.pass(Bytes::copy_from_slice(chunk.as_bytes())), expected, "{chunk}");
            assert_eq!(filter.take_held(), chunk[expected.len()..], "{chunk}");
        };
        check("data: {\"content\":\"sk-\"}\n\n", "data: {\"content\":\"sk-\"}\n\n");
        check("{\"content\":\"sk-", "{\"content\":\"");
        check("{\"content\":\"ask", "{\"content\":\"a");
        check("sk-live-0123456789abcde", "");
        check("", "");
    }

    #[test]
    fn what_is_no_secret_is_not_looked_for() {
        assert!(secrets(&["EMPTY", "no-key-required"], &[]).is_none());
        assert!(secrets(&[], &[("x-title", "Our application"), ("http-referer", "https://app.example")]).is_none());
        let found =
            secrets(&[], &[("api-key", "0123456789abcdefABCDEF"), ("x-basic", "Basic dXNlcjpwYXNzd29yZDEyMw==")]);
        let found = found.expect("both look like one");
        assert_eq!(
            passed(&found, &[b"0123456789abcdefABCDEF Basic dXNlcjpwYXNzd29yZDEyMw=="]),
            "******** Basic ********"
        );
    }

    #[test]
    fn a_header_that_holds_one_is_masked() {
        let secrets = secrets(&[ONE], &[]).expect("there are some");
        let mut headers = HeaderMap::from_iter([
            (HeaderName::from_static("x-request-id"), HeaderValue::from_static("req-1")),
            (
                HeaderName::from_static("openai-version"),
                HeaderValue::try_from(format!("Bearer {ONE}")).expect("a value"),
            ),
        ]);
        secrets.mask_headers(&mut headers);
        assert_eq!(
            (&headers["x-request-id"], &headers["openai-version"]),
            (&"req-1".parse().unwrap(), &MASK.parse().unwrap())
        );
    }
}
