//! The gateway's own response headers: who served a request, what it cost, what is left of limits.
//!
//! It only writes what it is given. Names and spellings are part of the public contract.
//!
//! Start reading in [`write_metadata`].

use crate::domain::id::RequestId;
use crate::domain::limit::RateLimitStatus;
use crate::domain::money::NanoUsd;
use crate::relay::ResponseMetadata;
use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use std::time::Duration;

/// The request's id, on every response.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MODEL: HeaderName = HeaderName::from_static("x-tierway-model");
const DEPLOYMENT: HeaderName = HeaderName::from_static("x-tierway-deployment");
const TIER: HeaderName = HeaderName::from_static("x-tierway-tier");
const REGION: HeaderName = HeaderName::from_static("x-tierway-region");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-tierway-attempts");
const OVERHEAD: HeaderName = HeaderName::from_static("x-tierway-overhead-us");
const CLAMPED: HeaderName = HeaderName::from_static("x-tierway-clamped");
const COST: HeaderName = HeaderName::from_static("x-tierway-cost-usd");
/// At least as many headers as are added to an answer.
const OURS: usize = 16;
/// At least as many bytes as their values usually have.
const USUAL_VALUES: usize = 384;
const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Present where limits are not counted as configured at the moment.
const MODE: HeaderName = HeaderName::from_static("x-ratelimit-mode");

/// What a web page may read of an answer, besides what every browser shows: each header that the gateway adds.
pub(super) const EXPOSED: &str = "x-request-id, x-tierway-model, x-tierway-deployment, x-tierway-tier, \
    x-tierway-region, x-tierway-attempts, x-tierway-overhead-us, x-tierway-clamped, x-tierway-cost-usd, \
    x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, \
    x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, x-ratelimit-mode, \
    retry-after, retry-after-ms, x-should-retry, allow";

/// Writes `metadata` as headers.
pub fn write_metadata(metadata: &ResponseMetadata, headers: &mut HeaderMap) {
    headers.reserve(OURS);
    let mut writer = HeaderWriter { text: Vec::with_capacity(USUAL_VALUES), written: Vec::with_capacity(OURS) };
    writer.write(REQUEST_ID, |text| text.extend_from_slice(&metadata.id.text()));
    if let Some(served) = &metadata.served {
        writer.name(MODEL, &served.model);
        writer.name(DEPLOYMENT, &served.deployment);
        if let Some(tier) = &served.tier {
            writer.name(TIER, tier);
        }
        writer.name(REGION, &served.region);
    }
    if let Some(cost) = metadata.cost {
        writer.write(COST, |text| text.extend_from_slice(cost.written(&mut [0; NanoUsd::LONGEST])));
    }
    if let Some(tokens) = metadata.clamped {
        writer.write(CLAMPED, |text| {
            text.extend_from_slice(b"max_tokens=");
            put_number(text, tokens);
        });
    }
    writer.number(ATTEMPTS, metadata.attempts.into());
    writer.number(OVERHEAD, metadata.overhead.as_micros() as u64);
    for (names, left) in [(REQUESTS, metadata.requests), (TOKENS, metadata.tokens)] {
        if let Some(left) = left {
            writer.rate(names, left);
        }
    }
    if metadata.limits_degraded {
        writer.write(MODE, |text| text.extend_from_slice(b"degraded"));
    }
    writer.insert_into(headers);
}

/// Writes the values of one answer's headers into one buffer, which they share: an allocation for each, and a format for
/// some, cost more than the digits (`make instructions`: 3,000 of a whole request).
struct HeaderWriter {
    text: Vec<u8>,
    /// The names, and where in `text` the value of each ends and the next one's begins.
    written: Vec<(HeaderName, usize)>,
}

impl HeaderWriter {
    /// A header whose value is what `put` appends.
    fn write(&mut self, name: HeaderName, put: impl FnOnce(&mut Vec<u8>)) {
        put(&mut self.text);
        self.written.push((name, self.text.len()));
    }

    /// Inserts them, but those that no header can hold.
    fn insert_into(self, headers: &mut HeaderMap) {
        let (text, mut start) = (Bytes::from(self.text), 0);
        for (name, end) in self.written {
            if let Ok(value) = HeaderValue::from_maybe_shared(text.slice(start..end)) {
                headers.insert(name, value);
            }
            start = end;
        }
    }

    /// A configured name, which may hold what no header can.
    fn name(&mut self, header: HeaderName, name: &str) {
        self.write(header, |text| text.extend_from_slice(name.as_bytes()));
    }

    fn number(&mut self, name: HeaderName, number: u64) {
        self.write(name, |text| put_number(text, number));
    }

    fn rate(&mut self, [limit, remaining, reset]: [HeaderName; 3], left: RateLimitStatus) {
        self.number(limit, left.limit);
        self.number(remaining, left.remaining);
        self.write(reset, |text| spell(left.reset, text));
    }
}

/// A request's id as a header.
pub fn id_value(id: RequestId) -> HeaderValue {
    HeaderValue::from_bytes(&id.text()).expect("hex digits are a header value")
}

fn put_number(into: &mut Vec<u8>, number: u64) {
    into.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A duration as OpenAI spells it: `250ms`, `1s`, `6m0s`; rounded up, so that it is never too early.
fn spell(duration: Duration, into: &mut Vec<u8>) {
    let ms = duration.as_secs() * 1_000 + u64::from(duration.subsec_nanos().div_ceil(1_000_000));
    if (1..=999).contains(&ms) {
        put_number(into, ms);
        return into.extend_from_slice(b"ms");
    }
    let (minutes, seconds) = (ms.div_ceil(1000) / 60, ms.div_ceil(1000) % 60);
    if minutes > 0 {
        put_number(into, minutes);
        into.push(b'm');
    }
    put_number(into, seconds);
    into.push(b's');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::receipt::ServingDeployment;
    use crate::http::error::Retry;

    #[test]
    fn durations_are_spelled_like_openai_spells_them() {
        let check = |micros: u64, expected: &str| {
            let mut spelled = Vec::new();
            spell(Duration::from_micros(micros), &mut spelled);
            assert_eq!(spelled, expected.as_bytes());
        };
        check(0, "0s");
        check(1, "1ms");
        check(250_000, "250ms");
        check(999_001, "1s");
        check(1_000_000, "1s");
        check(1_000_001, "2s");
        check(59_000_000, "59s");
        check(59_000_001, "1m0s");
        check(360_000_000, "6m0s");
    }

    fn written(metadata: &ResponseMetadata) -> String {
        let mut headers = HeaderMap::new();
        write_metadata(metadata, &mut headers);
        let mut lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        lines.sort();
        lines.join("\n")
    }

    fn refused() -> ResponseMetadata {
        ResponseMetadata {
            id: RequestId(0x0190_0000_0000_7000_8000_0000_0000_0001),
            served: None,
            attempts: 0,
            overhead: Duration::from_nanos(81_900),
            cost: None,
            clamped: None,
            requests: None,
            tokens: None,
            limits_degraded: false,
        }
    }

    #[test]
    fn an_answer_says_what_served_it() {
        let served = ServingDeployment {
            model: "deepseek-ai/DeepSeek-V4-Flash".into(),
            deployment: "global-us/deepseek-ai/DeepSeek-V4-Flash".into(),
            tier: Some("default".into()),
            region: "us-east".into(),
        };
        let left = |limit, remaining| RateLimitStatus { limit, remaining, reset: Duration::from_millis(1500) };
        insta::assert_snapshot!(written(&ResponseMetadata {
            served: Some(served),
            attempts: 2,
            cost: Some(NanoUsd(21_300)),
            clamped: Some(1024),
            requests: Some(left(50, 49)),
            tokens: Some(left(200_000, 198_500)),
            ..refused()
        }));
    }

    #[test]
    fn whatever_is_written_may_be_read_by_a_page() {
        let served =
            ServingDeployment { model: "m".into(), deployment: "d".into(), tier: Some("t".into()), region: "r".into() };
        let left = RateLimitStatus { limit: 1, remaining: 1, reset: Duration::ZERO };
        let metadata = ResponseMetadata {
            served: Some(served),
            cost: Some(NanoUsd(1)),
            clamped: Some(1),
            requests: Some(left),
            tokens: Some(left),
            limits_degraded: true,
            ..refused()
        };
        let mut headers = HeaderMap::new();
        write_metadata(&metadata, &mut headers);
        Retry::After(Duration::ZERO).write(http::StatusCode::SERVICE_UNAVAILABLE, &mut headers);
        let exposed: Vec<&str> = EXPOSED.split(", ").collect();
        let missing: Vec<_> = headers.keys().filter(|name| !exposed.contains(&name.as_str())).collect();
        assert!(headers.len() == 19 && missing.is_empty(), "{missing:?} of {}", headers.len());
        assert!(HeaderValue::from_str(EXPOSED).is_ok());
    }

    #[test]
    fn a_refusal_says_only_what_is_true_of_it() {
        insta::assert_snapshot!(written(&refused()));
    }

    #[test]
    fn a_name_that_no_header_can_hold_is_left_out() {
        let served =
            ServingDeployment { model: "a\nb".into(), deployment: "d".into(), tier: None, region: "é".into() };
        let written = written(&ResponseMetadata { served: Some(served), ..refused() });
        assert!(!written.contains("x-tierway-model") && written.contains("x-tierway-region"), "{written}");
    }
}
