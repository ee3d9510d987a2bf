//! The gateway's own response headers: who served a request, what it cost, what is left of limits.
//!
//! It only writes what it is given. Names and spellings are part of the public contract.
//!
//! Start reading in [`write_metadata`].

use crate::domain::id::RequestId;
use crate::domain::limit::RateLimitStatus;
use crate::relay::ResponseMetadata;
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

/// What a web page may read of an answer, besides what every browser shows: each header that the gateway adds.
pub(super) const EXPOSED: &str = "x-request-id, x-tierway-model, x-tierway-deployment, x-tierway-tier, \
    x-tierway-region, x-tierway-attempts, x-tierway-overhead-us, x-tierway-clamped, x-tierway-cost-usd, \
    x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, \
    x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, \
    retry-after, retry-after-ms, x-should-retry, allow";

/// Writes `metadata` as headers.
pub fn write_metadata(metadata: &ResponseMetadata, headers: &mut HeaderMap) {
    headers.reserve(OURS);
    headers.insert(REQUEST_ID, id_value(metadata.id));
    if let Some(served) = &metadata.served {
        name(&MODEL, &served.model, headers);
        name(&DEPLOYMENT, &served.deployment, headers);
        if let Some(tier) = &served.tier {
            name(&TIER, tier, headers);
        }
        name(&REGION, &served.region, headers);
    }
    if let Some(cost) = metadata.cost {
        headers.insert(COST, HeaderValue::try_from(cost.to_string()).expect("digits are a header value"));
    }
    if let Some(tokens) = metadata.clamped {
        let value = HeaderValue::try_from(format!("max_tokens={tokens}"));
        headers.insert(CLAMPED, value.expect("digits are a header value"));
    }
    headers.insert(ATTEMPTS, HeaderValue::from(metadata.attempts));
    headers.insert(OVERHEAD, HeaderValue::from(metadata.overhead.as_micros() as u64));
    for (names, left) in [(REQUESTS, metadata.requests), (TOKENS, metadata.tokens)] {
        if let Some(left) = left {
            rate(names, left, headers);
        }
    }
}

/// A request's id as a header.
pub fn id_value(id: RequestId) -> HeaderValue {
    HeaderValue::from_bytes(&id.text()).expect("hex digits are a header value")
}

/// A configured name may hold what no header can; such a header is left out.
fn name(header: &HeaderName, name: &str, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::from_bytes(name.as_bytes()) {
        headers.insert(header, value);
    }
}

fn rate([limit, remaining, reset]: [HeaderName; 3], left: RateLimitStatus, headers: &mut HeaderMap) {
    headers.insert(limit, HeaderValue::from(left.limit));
    headers.insert(remaining, HeaderValue::from(left.remaining));
    headers.insert(reset, HeaderValue::try_from(spell(left.reset)).expect("digits are a header value"));
}

/// A duration as OpenAI spells it: `250ms`, `1s`, `6m0s`; rounded up, so that it is never too early.
fn spell(duration: Duration) -> String {
    let ms = duration.as_secs() * 1_000 + u64::from(duration.subsec_nanos().div_ceil(1_000_000));
    match (ms, ms.div_ceil(1000)) {
        (0, _) => "0s".to_owned(),
        (1..=999, _) => format!("{ms}ms"),
        (_, seconds @ 0..=59) => format!("{seconds}s"),
        (_, seconds) => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::money::NanoUsd;
    use crate::domain::receipt::ServingDeployment;
    use crate::http::error::Retry;

    #[test]
    fn durations_are_spelled_like_openai_spells_them() {
        let check = |micros: u64, expected: &str| assert_eq!(spell(Duration::from_micros(micros)), expected);
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
            ..refused()
        };
        let mut headers = HeaderMap::new();
        write_metadata(&metadata, &mut headers);
        Retry::After(Duration::ZERO).write(http::StatusCode::SERVICE_UNAVAILABLE, &mut headers);
        let exposed: Vec<&str> = EXPOSED.split(", ").collect();
        let missing: Vec<_> = headers.keys().filter(|name| !exposed.contains(&name.as_str())).collect();
        assert!(headers.len() == 18 && missing.is_empty(), "{missing:?} of {}", headers.len());
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
