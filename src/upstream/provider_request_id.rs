//! The provider's own name for a request, which its support will ask for.
//!
//! It is the provider's text: bounded, printable, and never a metric's label.
//!
//! Start reading in [`provider_request_id`].

use http::HeaderMap;

/// The longest name that is kept, in bytes.
const MAX_BYTES: usize = 128;

/// Where providers write it. The first that is given counts: what the model's own host says, then what stands before
/// it.
const HEADERS: [&str; 20] = [
    "x-request-id",
    "request-id",
    "apim-request-id",
    "x-ms-request-id",
    "x-amzn-requestid",
    "x-amzn-request-id",
    "x-amz-request-id",
    "x-goog-request-id",
    "x-generation-id",
    "nvcf-reqid",
    "msh-request-id",
    "x-ds-trace-id",
    "x-siliconcloud-trace-id",
    "x-tt-logid",
    "x-trace-id",
    "trace-id",
    "x-correlation-id",
    "x-cloud-trace-context",
    "cf-ray",
    "x-vercel-id",
];

/// The name in `headers`, with the header that has it; `None` where none has one that can be shown.
pub(super) fn provider_request_id(headers: &HeaderMap) -> Option<(&'static str, &str)> {
    // One walk over what came is less than a look-up of each name: see benches/instructions.toml.
    let ids = headers.iter().filter_map(|(name, value)| {
        let rank = HEADERS.iter().position(|known| *known == name.as_str())?;
        let id = value.to_str().ok()?.trim();
        let is_shown = !id.is_empty() && id.len() <= MAX_BYTES && id.bytes().all(|byte| byte.is_ascii_graphic());
        is_shown.then_some((rank, id))
    });
    // Of several with one name, the first.
    ids.min_by_key(|(rank, _)| *rank).map(|(rank, id)| (HEADERS[rank], id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn the_first_name_that_can_be_shown_counts() {
        let check = |list: &[(&'static str, &str)], expected: Option<&str>| {
            let one = |(name, value): &(&'static str, &str)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).expect("the case is a header"))
            };
            let headers: HeaderMap = list.iter().map(one).collect();
            assert_eq!(provider_request_id(&headers).map(|(_, id)| id), expected, "{list:?}");
        };
        check(&[], None);
        for name in HEADERS {
            check(&[(name, " r-1 ")], Some("r-1"));
        }
        check(&[("cf-ray", "ray"), ("request-id", "req")], Some("req"));
        check(&[("x-request-id", ""), ("cf-ray", "ray")], Some("ray"));
        check(&[("x-request-id", "a b"), ("cf-ray", "ray")], Some("ray"));
        check(&[("x-request-id", &"x".repeat(129))], None);
        check(&[("x-request-id", &"x".repeat(128))], Some(&"x".repeat(128)));
    }
}
