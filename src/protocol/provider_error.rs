//! What providers say in errors, in whichever of the known shapes: hosts of one dialect answer in those of others.
//!
//! What a provider says is never shown before it is masked.
//!
//! Start reading in [`read_error`].

use crate::domain::call::CeilingName;
use crate::domain::secret::{CREDENTIAL_PREFIXES, is_random};
use crate::protocol::{ErrorReading, ErrorTopic};
use serde_json::Value;

/// Whether `error`, the body of a host's refusal, names the member by which usage is asked for. Hosts write it in many
/// ways: `stream_options`, `streamOptions`, `stream\\_options`, `body.stream_options.include_usage`.
pub fn refuses_usage(error: &[u8]) -> bool {
    let letters = letters_of(error);
    [&b"streamoption"[..], b"includeusage"].iter().any(|name| memchr::memmem::find(&letters, name).is_some())
}

/// How hosts say that they do not know a member.
const UNKNOWN: [&[u8]; 8] = [
    b"unsupported",
    b"unrecognized",
    b"unknown",
    b"unexpected",
    b"notsupported",
    b"notpermitted",
    b"notallowed",
    b"extrafields",
];

/// Whether the body of an error says that the ceiling of the output is not known by this name. That it is too high is
/// something else.
pub fn refuses_ceiling(error: &[u8], name: CeilingName) -> bool {
    let letters = letters_of(error);
    let has = |word: &[u8]| memchr::memmem::find(&letters, word).is_some();
    has(&letters_of(name.word().as_bytes())) && UNKNOWN.iter().any(|word| has(word))
}

/// The letters of `text` alone, in lower case: hosts differ in everything between them.
fn letters_of(text: &[u8]) -> Vec<u8> {
    text.iter().filter(|byte| byte.is_ascii_alphabetic()).map(u8::to_ascii_lowercase).collect()
}

/// The longest sentence of a provider that is repeated, in characters.
const MAX_SENTENCE: usize = 300;
/// How much of a message is looked at, in bytes.
const MAX_MESSAGE: usize = 4096;

/// What a word for programs means: a code, a type, a status or a reason, in lower case. The first row that has one of
/// an error's words is its topic.
const CODES: [(ErrorTopic, &[&str]); 7] = [
    (ErrorTopic::ContextTooLong, &["context_length_exceeded", "exceed_context_size_error"]),
    (
        ErrorTopic::Content,
        &[
            "content_filter",
            "content_policy_violation",
            "responsibleaipolicyviolation",
            "moderation_blocked",
            "invalid_prompt",
            "data_inspection_failed",
            "prohibited_content",
        ],
    ),
    (
        ErrorTopic::Account,
        &[
            "insufficient_quota",
            "billing_hard_limit_reached",
            "billing_not_active",
            "billing_error",
            "billing_disabled",
            "account_deactivated",
            "account_suspended",
            "organization_restricted",
            "organization_on_hold",
            "consumer_suspended",
            "service_disabled",
            "failed_precondition",
            "credit_limit",
            "insufficient_balance",
            "insufficient_credits",
            "enforced_spend_limit_reached",
            "contract_spend_limit_reached",
            "exceeded_current_quota_error",
            "arrearage",
            "unsupported_country_region_territory",
        ],
    ),
    (
        ErrorTopic::Credential,
        &[
            "invalid_api_key",
            "invalidapikey",
            "api_key_invalid",
            "api_key_expired",
            "expired_api_key",
            "api_key_service_blocked",
            "authentication_error",
            "invalid_authentication_error",
            "unauthenticated",
        ],
    ),
    (
        ErrorTopic::Model,
        &[
            "model_not_found",
            "model_decommissioned",
            "model_not_available",
            "model_not_active",
            "model_terms_required",
            "model_permission_blocked_org",
            "model_permission_blocked_project",
            "invalid_model",
            "deploymentnotfound",
            "operationnotsupported",
        ],
    ),
    (ErrorTopic::Rate, &["rate_limit_exceeded", "rate_limit_error", "resource_exhausted", "too_many_requests"]),
    (
        ErrorTopic::Endpoint,
        &[
            "unknown_url",
            "url_not_found",
            "route_not_found",
            "unknown_endpoint",
            "endpoint_not_found",
            "method_not_allowed",
            "not_supported_error",
        ],
    ),
];

/// How hosts word it where they give no such code; in lower case, and without what a message quotes.
const PHRASES: [(ErrorTopic, &[&str]); 8] = [
    // An account may be flagged like a request.
    (ErrorTopic::Account, &["account was flagged", "account has been flagged"]),
    (
        ErrorTopic::Content,
        &[
            "content management policy",
            "content policy",
            "content filter",
            "content exists risk",
            "usage policy",
            "usage policies",
            "flagged",
            "moderation",
            "safety system",
            "safety filter",
            "safety setting",
            "safety reasons",
            "inappropriate content",
            "prohibited content",
        ],
    ),
    (
        ErrorTopic::Account,
        &[
            "credit balance is too low",
            "insufficient balance",
            "insufficient credit",
            "insufficient funds",
            "requires more credits",
            "can only afford",
            "credit limit",
            "out of credits",
            "exceeded your current quota",
            "quota exhausted",
            "quota has been exhausted",
            "billing hard limit",
            "enable billing",
            "billing account",
            "spending limit",
            "spend limit",
            "key limit exceeded",
            "specified api usage limits",
            "has been deactivated",
            "account is deactivated",
            "account is suspended",
            "is suspended, possibly due to",
            "has been suspended",
            "organization has been disabled",
            "organization has been restricted",
            "account is not active",
            "account is in good standing",
            "user location is not supported",
            "country, region, or territory not supported",
            "not available in your country",
        ],
    ),
    (
        ErrorTopic::Credential,
        &[
            "api key not valid",
            "invalid api key",
            "invalid api-key",
            "invalid x-api-key",
            "incorrect api key",
            "api key is invalid",
            "api key you provided is invalid",
            "api key expired",
            "api key has expired",
            "api key was reported as leaked",
            "api key is missing",
            "missing api key",
            "no auth credentials",
            "invalid subscription key",
            "authentication fails",
            "invalid authentication",
            "access token is missing, invalid",
        ],
    ),
    (
        ErrorTopic::Model,
        &[
            "decommissioned",
            "model not exist",
            "model not found",
            "model does not exist",
            "does not exist or you do not have access",
            "model has been deprecated",
            "is not a valid model",
            "invalid model:",
            "invalid model name",
            "unable to access model",
            "deployment for this resource does not exist",
            "no endpoints found",
        ],
    ),
    (
        ErrorTopic::Rate,
        &[
            "tokens per min",
            "tokens per day",
            "requests per min",
            "(tpm)",
            "token rate limit",
            "rate limit reached",
            "rate limit exceeded",
            "too many requests",
        ],
    ),
    (
        ErrorTopic::ContextTooLong,
        &[
            "maximum context length",
            "context length exceeded",
            "context_length_exceeded",
            "exceeds the context window",
            "exceed context limit",
            "exceeds the available context size",
            "longer than the model's context length",
            "exceeds the maximum number of tokens allowed",
            "prompt is too long",
            "input is too long",
            // What it names is quoted.
            "tokens + must be <=",
        ],
    ),
    (
        ErrorTopic::Endpoint,
        &[
            "invalid url (post ",
            "unrecognized request url",
            "unknown request url",
            "unexpected endpoint or method",
            "no route matched with those values",
            "cannot post /",
            "please check the url",
        ],
    ),
];

/// All that hosts say whose router knows no such path. What else was not found has a name in such a sentence.
const NO_PATH: [&str; 14] = [
    "not found",
    "404 not found",
    "404: not found",
    "404 page not found",
    "page not found",
    "path not found",
    "route not found",
    "url not found",
    "endpoint not found",
    "file not found",
    "resource not found",
    "method not allowed",
    "405 method not allowed",
    "unknown endpoint",
];

/// What the pages of routers and web servers say of a path that they do not know.
const NO_PATH_ON_A_PAGE: [&str; 5] =
    ["cannot post /", "404 not found", "404 (not found)", "requested url was not found on th", "405 not allowed"];

/// Behind these words stands how long to wait.
const WAITS: [&str; 4] = ["try again in ", "retry in ", "retry after ", "try again after "];

/// Reads the body of an error, in whichever of the known shapes it is. What the client may have sent, which some hosts
/// repeat in quotes, decides nothing.
pub fn read_error(body: &[u8]) -> ErrorReading {
    if is_page(body) {
        let topic = if is_page_of_no_path(body) { ErrorTopic::Endpoint } else { ErrorTopic::Page };
        return ErrorReading { topic, sentence: None, wait: None };
    }
    let Ok(error) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(&body[..body.len().min(MAX_MESSAGE)]);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        let words = line.map(unquoted).unwrap_or_default();
        let topic = if says_no_path(&words) { ErrorTopic::Endpoint } else { ErrorTopic::Unknown };
        return ErrorReading { topic, sentence: line.and_then(sentence), wait: named_wait(&words) };
    };
    // Google's compatible endpoint answers with a list of one.
    let error = error.get(0).unwrap_or(&error);
    // OpenAI nests the error; some hosts do not.
    let inner = error.get("error").filter(|inner| inner.is_object()).unwrap_or(error);
    let texts = [inner.get("message"), error.get("error"), error.get("message"), error.get("detail")];
    let message = texts.into_iter().flatten().filter_map(Value::as_str).find(|text| !text.trim().is_empty());
    let message = message.map(|text| &text[..text.floor_char_boundary(MAX_MESSAGE)]);
    let words = message.map(unquoted).unwrap_or_default();
    let delay = details(inner).find_map(|detail| detail.get("retryDelay")?.as_str()).map(Into::into);
    ErrorReading {
        topic: topic_of_codes(error, inner)
            .or_else(|| first_topic(&PHRASES, |phrase| words.contains(phrase)))
            .or_else(|| says_no_path(&words).then_some(ErrorTopic::Endpoint))
            .unwrap_or(ErrorTopic::Unknown),
        sentence: message.and_then(sentence),
        wait: delay.or_else(|| named_wait(&words)),
    }
}

/// Whether it is HTML, or what Cloudflare writes to clients that are no browser.
fn is_page(body: &[u8]) -> bool {
    let start = body.trim_ascii_start();
    let begins = |with: &str| start.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()));
    ["<!doctype html", "<html", "<head", "error code: 1"].into_iter().any(begins)
}

fn says_no_path(words: &str) -> bool {
    NO_PATH.contains(&words.trim_end_matches('.'))
}

fn is_page_of_no_path(page: &[u8]) -> bool {
    let words = String::from_utf8_lossy(&page[..page.len().min(MAX_MESSAGE)]).to_ascii_lowercase();
    NO_PATH_ON_A_PAGE.iter().any(|phrase| words.contains(phrase))
}

fn first_topic(table: &[(ErrorTopic, &[&str])], is_said: impl Fn(&str) -> bool) -> Option<ErrorTopic> {
    table.iter().find(|(_, words)| words.iter().any(|word| is_said(word))).map(|(topic, _)| *topic)
}

fn topic_of_codes(error: &Value, inner: &Value) -> Option<ErrorTopic> {
    let nested = [inner.get("innererror"), inner.get("details")].into_iter().flatten();
    let members = [inner, error].into_iter().chain(nested).chain(details(inner));
    let codes: Vec<String> = members
        .flat_map(|object| ["code", "type", "status", "reason", "error_code"].map(|name| object.get(name)))
        .filter_map(|code| Some(code?.as_str()?.to_ascii_lowercase()))
        .collect();
    // OpenRouter says by which words a request was refused.
    let is_moderated = inner.get("metadata").is_some_and(|metadata| metadata.get("flagged_input").is_some());
    let of_codes = || first_topic(&CODES, |word| codes.iter().any(|code| code == word));
    if is_moderated { Some(ErrorTopic::Content) } else { of_codes() }
}

/// Google's further words, each with a type of its own.
fn details(inner: &Value) -> impl Iterator<Item = &Value> {
    inner.get("details").and_then(Value::as_array).into_iter().flatten()
}

/// `text` in lower case, with single blanks and without what stands in quotes.
fn unquoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut quote, mut before) = (None, ' ');
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let in_word = |c: &char| c.is_alphanumeric();
        let is_quote = match (c, quote) {
            ('`' | '"', None) => true,
            // An apostrophe is no quote.
            ('\'', None) => !in_word(&before),
            (c, Some(open)) => c == open && (c != '\'' || !chars.peek().is_some_and(in_word)),
            _ => false,
        };
        match (is_quote, quote) {
            (true, None) => quote = Some(c),
            (true, Some(_)) => quote = None,
            (false, Some(_)) => {}
            (false, None) if !c.is_whitespace() => out.extend(c.to_lowercase()),
            (false, None) if out.ends_with(' ') => {}
            (false, None) => out.push(' '),
        }
        before = c;
    }
    out
}

/// How long `words` ask to wait: a number with its unit, or several.
fn named_wait(words: &str) -> Option<Box<str>> {
    let rest = WAITS.iter().find_map(|wait| words.split_once(wait).map(|(_, rest)| rest))?;
    let mut parts = rest.split(' ');
    let first = parts.next()?;
    let span = match first.ends_with(|c: char| c.is_ascii_digit()) {
        true => [first, " ", parts.next().unwrap_or_default()].concat(),
        false => first.to_owned(),
    };
    let span = span.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    span.starts_with(|c: char| c.is_ascii_digit()).then(|| span.into())
}

/// `message` as one short line without what looks like a credential.
fn sentence(message: &str) -> Option<Box<str>> {
    let plain: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let masked = masked(&plain);
    let short = masked.char_indices().nth(MAX_SENTENCE).map_or(&masked[..], |(end, _)| &masked[..end]);
    (!short.is_empty()).then(|| short.trim_end().into())
}

/// Words behind which, with `:` or `=`, a secret stands.
const NAMES_OF_SECRETS: [&str; 6] = ["key", "token", "secret", "password", "authorization", "credential"];
const MASK: &str = "***";

/// `line` with single blanks and a mask for each word, or end of one, that looks like a credential.
fn masked(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut next_is_secret = false;
    for word in line.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        let is_scheme = word.trim_matches(|c: char| !c.is_alphanumeric()).eq_ignore_ascii_case("bearer");
        if is_scheme {
            out.push_str(word);
            next_is_secret = true;
        } else if std::mem::take(&mut next_is_secret) {
            out.push_str(MASK);
        } else if let Some(at) = secret_in(word) {
            next_is_secret = !word[at..].contains(char::is_alphanumeric);
            out.push_str(&word[..at]);
            if !next_is_secret {
                out.push_str(MASK);
            } else {
                out.push_str(&word[at..]);
            }
        } else {
            mask_long_runs(word, &mut out);
        }
    }
    out
}

/// Where in `word` a secret begins: behind its name, or with a known prefix.
fn secret_in(word: &str) -> Option<usize> {
    let lower = word.to_ascii_lowercase();
    let places = |text: &'static str| lower.match_indices(text).map(|(at, _)| at);
    let named = NAMES_OF_SECRETS.iter().flat_map(|name| {
        places(name).filter_map(|at| {
            let rest = lower[at + name.len()..].trim_start_matches(['"', '\'', '`']);
            rest.starts_with([':', '=']).then(|| lower.len() - rest.len() + 1)
        })
    });
    let begins = |at: &usize| !lower[..*at].ends_with(|c: char| c.is_alphanumeric());
    let known = CREDENTIAL_PREFIXES.iter().flat_map(|prefix| places(prefix).filter(begins));
    named.chain(known).min()
}

fn mask_long_runs(word: &str, out: &mut String) {
    let in_run = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '_' | '-' | '=');
    let mut rest = word;
    while let Some(start) = rest.find(in_run) {
        let end = rest[start..].find(|c| !in_run(c)).map_or(rest.len(), |length| start + length);
        let run = &rest[start..end];
        out.push_str(&rest[..start]);
        out.push_str(if is_random(run) { MASK } else { run });
        rest = &rest[end..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_our_wish_for_usage_is_known_in_every_spelling() {
        for refusal in [
            r#"{"error":{"message":"Unrecognized request argument supplied: stream_options"}}"#,
            r#"{"error":{"message":"Unknown parameter","param":"stream_options"}}"#,
            r#"{"detail":[{"type":"extra_forbidden","loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}"#,
            r#"{"detail":[{"loc":["body","stream_options","include_usage"],"msg":"extra fields not permitted"}]}"#,
            r#"{"message":"Invalid field `streamOptions`"}"#,
            r#"{"error":"json: unknown field \"stream_options\""}"#,
            r"property 'stream\_options' is unsupported",
            "Stream options are not supported by this model",
            r#"{"object":"error","message":"[{'loc': ('body', 'StreamOptions')}]"}"#,
            r#"{"error":{"message":"include-usage is not allowed"}}"#,
        ] {
            assert!(refuses_usage(refusal.as_bytes()), "{refusal}");
        }
        for other in ["", "{}", r#"{"error":{"message":"stream is not supported, no options"}}"#, "usage limit reached"]
        {
            assert!(!refuses_usage(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_name_of_the_ceiling_that_is_not_known_differs_from_one_that_is_too_high() {
        use CeilingName::{MaxCompletionTokens as New, MaxTokens as Old};
        let openai = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        let azure = "Unrecognized request argument supplied: max_completion_tokens";
        let pydantic = r#"{"detail":[{"type":"extra_forbidden","loc":["body","max_completion_tokens"],"msg":"Extra inputs are not permitted"}]}"#;
        for (error, name) in [(openai, Old), (azure, New), (pydantic, New)] {
            assert!(refuses_ceiling(error.as_bytes(), name), "{error}");
        }
        for (error, name) in [
            ("max_tokens is too large: 9000. This model supports at most 4096", Old),
            ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", Old),
            (azure, Old),
            ("Unsupported value: 'temperature'", Old),
        ] {
            assert!(!refuses_ceiling(error.as_bytes(), name), "{error}");
        }
    }

    fn check(body: &str, expected: ErrorTopic) {
        assert_eq!(read_error(body.as_bytes()).topic, expected, "{body}");
    }

    #[test]
    fn a_request_that_was_too_long_differs_from_a_bad_one() {
        let long = |body: &str| check(body, ErrorTopic::ContextTooLong);
        long(r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#);
        long(r#"{"error":{"message":"x","type":"context_length_exceeded","code":400}}"#);
        long(r#"{"error":{"message":"This model's maximum context length is 8192 tokens."}}"#);
        long(r#"{"object":"error","message":"The prompt is too long","code":422}"#);
        long(r#"{"error":"input exceeds the context window"}"#);
        // Anthropic, llama.cpp, Together.
        long(r#"{"error":{"message":"input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"}}"#);
        long(r#"{"error":{"code":400,"message":"the request is too large","type":"exceed_context_size_error"}}"#);
        long(r#"{"error":{"message":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097."}}"#);
        let unknown = |body: &str| check(body, ErrorTopic::Unknown);
        unknown(r#"{"error":{"message":"bad","code":"invalid_value"}}"#);
        unknown(r#"{"error":{"message":"Too long","code":"string_above_max_length"}}"#);
        unknown("context_length_exceeded");
        unknown("");
        unknown("[]");
        unknown("[[]]");
    }

    #[test]
    fn hosts_speak_of_content() {
        let content = |body: &str| check(body, ErrorTopic::Content);
        // OpenAI.
        content(
            r#"{"error":{"code":"content_policy_violation","message":"Your request was rejected.","type":"invalid_request_error"}}"#,
        );
        content(
            r#"{"error":{"message":"Rejected as a result of our safety system.","type":"invalid_request_error","code":null}}"#,
        );
        content(
            r#"{"error":{"message":"Invalid prompt.","type":"invalid_request_error","param":null,"code":"invalid_prompt"}}"#,
        );
        // Azure.
        content(r#"{"error":{"message":"The prompt triggered it.","code":"content_filter","status":400}}"#);
        content(
            r#"{"error":{"message":"x","code":"BadRequest","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
        );
        // Anthropic, DeepSeek, Alibaba.
        content(
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Output blocked by content filtering policy"}}"#,
        );
        content(
            r#"{"error":{"message":"Content Exists Risk","type":"invalid_request_error","code":"invalid_request_error"}}"#,
        );
        content(r#"{"error":{"message":"x","type":"data_inspection_failed"}}"#);
        // OpenRouter.
        content(r#"{"error":{"code":403,"message":"x","metadata":{"reasons":["violence"],"flagged_input":"y"}}}"#);
        content(
            r#"{"error":{"code":403,"message":"Your chosen model requires moderation and your input was flagged."}}"#,
        );
    }

    #[test]
    fn hosts_speak_of_our_account() {
        let account = |body: &str| check(body, ErrorTopic::Account);
        // OpenAI.
        account(r#"{"error":{"message":"x","type":"insufficient_quota","param":null,"code":null}}"#);
        account(
            r#"{"error":{"message":"Billing hard limit has been reached","type":"invalid_request_error","code":"billing_hard_limit_reached"}}"#,
        );
        account(
            r#"{"error":{"message":"x","type":"invalid_request_error","param":null,"code":"account_deactivated"}}"#,
        );
        account(r#"{"error":{"message":"Your account was flagged for potential abuse."}}"#);
        // Anthropic.
        account(
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low."}}"#,
        );
        account(r#"{"error":{"message":"This organization has been disabled.","type":"invalid_request_error"}}"#);
        account(r#"{"error":{"message":"You have reached your specified API usage limits."}}"#);
        // Groq, Together, Fireworks, DeepSeek, Alibaba.
        account(
            r#"{"error":{"message":"Organization has been restricted.","type":"invalid_request_error","code":"organization_restricted"}}"#,
        );
        account(
            r#"{"id":"x","error":{"message":"Credit limit exceeded, please add credits.","type":"credit_limit","code":null}}"#,
        );
        account(
            r#"{"error":{"message":"Account a is suspended, possibly due to reaching the monthly spending limit","code":"PRECONDITION_FAILED"}}"#,
        );
        account(
            r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#,
        );
        account(
            r#"{"error":{"code":"Arrearage","message":"Access denied, make sure your account is in good standing."}}"#,
        );
        // OpenRouter.
        account(r#"{"error":{"message":"This request requires more credits, or fewer max_tokens.","code":402}}"#);
        account(r#"{"error":{"message":"Key limit exceeded (total limit).","code":403}}"#);
        // Google.
        account(
            r#"[{"error":{"code":400,"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}]"#,
        );
        account(
            r#"[{"error":{"code":403,"message":"x","status":"PERMISSION_DENIED","details":[{"reason":"CONSUMER_SUSPENDED"}]}}]"#,
        );
    }

    #[test]
    fn hosts_speak_of_our_credential() {
        let credential = |body: &str| check(body, ErrorTopic::Credential);
        // OpenAI, Azure.
        credential(
            r#"{"error":{"message":"Incorrect API key provided: sk-1","type":"invalid_request_error","code":"invalid_api_key"}}"#,
        );
        credential(
            r#"{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}"#,
        );
        credential(r#"{"statusCode":401,"message":"Unauthorized. Access token is missing, invalid, or has expired."}"#);
        // Anthropic, Groq, Fireworks, DeepSeek, OpenRouter, llama.cpp.
        credential(r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#);
        credential(
            r#"{"error":{"message":"Invalid API Key","type":"invalid_request_error","code":"invalid_api_key"}}"#,
        );
        credential(
            r#"{"error":{"message":"The API key you provided is invalid.","code":"UNAUTHORIZED","type":"error"}}"#,
        );
        credential(
            r#"{"error":{"message":"Authentication Fails, Your api key: ****abcd is invalid","code":"invalid_request_error"}}"#,
        );
        credential(r#"{"error":{"message":"No auth credentials found","code":401}}"#);
        credential(r#"{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}"#);
        // Google answers 400.
        let google = r#"[{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}]"#;
        credential(google);
    }

    #[test]
    fn hosts_speak_of_a_model() {
        let model = |body: &str| check(body, ErrorTopic::Model);
        // OpenAI, Azure.
        model(r#"{"error":{"message":"x","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#);
        model(
            r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
        );
        // Groq, Together, Fireworks, DeepSeek, OpenRouter, Mistral.
        model(r#"{"error":{"message":"The model `m` has been decommissioned.","code":"model_decommissioned"}}"#);
        model(
            r#"{"error":{"message":"Unable to access model m.","type":"invalid_request_error","code":"model_not_available"}}"#,
        );
        model(r#"{"error":{"message":"Model not found, inaccessible, and/or not deployed","code":"NOT_FOUND"}}"#);
        model(
            r#"{"error":{"message":"Model Not Exist","type":"invalid_request_error","code":"invalid_request_error"}}"#,
        );
        model(r#"{"error":{"message":"m is not a valid model ID","code":400}}"#);
        model(r#"{"error":{"message":"No endpoints found for m.","code":404}}"#);
        model(r#"{"object":"error","message":"Invalid model: m","type":"invalid_model","param":null,"code":"1500"}"#);
        // vLLM, Ollama.
        model(
            r#"{"object":"error","message":"The model `m` does not exist.","type":"NotFoundError","param":null,"code":404}"#,
        );
        model(
            r#"{"error":{"message":"model \"m\" not found, try pulling it first","type":"api_error","param":null,"code":null}}"#,
        );
    }

    #[test]
    fn hosts_speak_of_a_rate() {
        let rate = |body: &str| check(body, ErrorTopic::Rate);
        // Groq, whose sentence has a link to its billing.
        rate(
            r#"{"error":{"message":"Request too large for model `m` in organization `o` on tokens per minute (TPM): Limit 6000, Requested 12328. Upgrade at https://console.groq.com/settings/billing","type":"tokens","code":"rate_limit_exceeded"}}"#,
        );
        rate(
            r#"{"error":{"message":"Request too large for m on tokens per min (TPM): Limit 30000, Requested 342389."}}"#,
        );
        // Google names its quota and its billing for a limit per minute, too.
        rate(
            r#"[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED"}}]"#,
        );
        // Azure.
        rate(
            r#"{"error":{"code":"429","message":"Requests have exceeded token rate limit of your current OpenAI S0 pricing tier."}}"#,
        );
    }

    #[test]
    fn hosts_without_an_endpoint_say_so() {
        let endpoint = |body: &str| check(body, ErrorTopic::Endpoint);
        // OpenAI, now and before; Groq, xAI, Azure, Anthropic.
        endpoint(
            r#"{"error":{"message":"Invalid URL (POST /v1/x)","type":"invalid_request_error","param":null,"code":null}}"#,
        );
        endpoint(r#"{"error":{"message":"Unrecognized request URL (POST: /v1/x). Remove the trailing slash."}}"#);
        endpoint(
            r#"{"error":{"message":"Unknown request URL: POST /openai/v1/x.","type":"invalid_request_error","code":"unknown_url"}}"#,
        );
        endpoint(
            r#"{"code":"Some requested entity was not found","error":"The requested resource was not found. Please check the URL and try again."}"#,
        );
        endpoint(r#"{"error":{"code":"404","message":"Resource not found"}}"#);
        endpoint(r#"{"type":"error","error":{"type":"not_found_error","message":"Not Found"}}"#);
        // vLLM and whatever else is FastAPI, llama.cpp, LM Studio, Ollama and whatever else is Go, Spring, Kong.
        endpoint(r#"{"detail":"Not Found"}"#);
        endpoint(r#"{"detail":"Method Not Allowed"}"#);
        endpoint(r#"{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}"#);
        endpoint(r#"{"error":{"code":501,"message":"This server does not support x.","type":"not_supported_error"}}"#);
        endpoint(r#"{"error":"Unexpected endpoint or method. (POST /v1/x)"}"#);
        endpoint("404 page not found");
        endpoint("Not Found");
        endpoint(r#"{"timestamp":"2026-11-30","status":404,"error":"Not Found","path":"/v1/x"}"#);
        endpoint(r#"{"message":"no Route matched with those values"}"#);
        // Express, nginx, Flask.
        endpoint("<!DOCTYPE html>\n<html lang=\"en\"><body><pre>Cannot POST /v1/x</pre></body></html>");
        endpoint("<html>\r\n<head><title>404 Not Found</title></head>\r\n<body><center>nginx</center></body></html>");
        endpoint(
            "<!doctype html>\n<title>404 Not Found</title>\n<p>The requested URL was not found on the server.</p>",
        );
        // What else is not found there, which a request may name; what is quoted may be a client's.
        for other in [
            r#"{"error":{"message":"No such File object: file-1","type":"invalid_request_error"}}"#,
            r#"{"error":{"message":"File not found: file_1","type":"not_found_error"}}"#,
            r#"{"error":{"message":"The requested URL returned error: 404 Not Found"}}"#,
            r#"{"error":{"message":"Response with id 'resp_1' not found."}}"#,
            r#"{"error":{"message":"'not found'"}}"#,
            r#"{"error":{"message":"Bad tool 'cannot post /'"}}"#,
            "Tool not found",
        ] {
            check(other, ErrorTopic::Unknown);
        }
    }

    #[test]
    fn a_page_is_known_by_its_beginning() {
        check("<!DOCTYPE html>\n<html><title>Attention Required! | Cloudflare</title>", ErrorTopic::Page);
        check("\r\n<html>\r\n<head><title>403 Forbidden</title></head>", ErrorTopic::Page);
        check("error code: 1020", ErrorTopic::Page);
        check(r#"{"error":{"message":"<html>"}}"#, ErrorTopic::Unknown);
    }

    #[test]
    fn what_a_client_may_have_sent_decides_nothing() {
        let unknown = |body: &str| check(body, ErrorTopic::Unknown);
        unknown(
            r#"{"error":{"message":"Invalid value: 'invalid api key'. Supported values are: 'auto'.","code":"invalid_value"}}"#,
        );
        unknown(r#"{"error":{"message":"Unknown role `insufficient balance`"}}"#);
        unknown(r#"{"detail":[{"msg":"Field required","input":"model not found"}]}"#);
        unknown(r#"{"error":{"message":"Bad","param":"insufficient_quota"}}"#);
        unknown(r#"{"error":{"message":"'it's a model not found"}}"#);
        assert_eq!(unquoted("The Model `x`  'a b' it's users' \"q\" End"), "the model it's users' end");
    }

    #[test]
    fn a_wait_is_found_as_it_is_written() {
        let check = |body: &str, expected: Option<&str>| {
            assert_eq!(read_error(body.as_bytes()).wait.as_deref(), expected, "{body}");
        };
        let says = |message: &str| format!(r#"{{"error":{{"message":"{message}"}}}}"#);
        check(
            r#"[{"error":{"code":429,"details":[{"@type":"x"},{"@type":"y","retryDelay":"12.5s"}]}}]"#,
            Some("12.5s"),
        );
        check(&says("Rate limit reached. Please try again in 1.2s. Visit us."), Some("1.2s"));
        check(&says("Please try again in 9m38.016s. Need more?"), Some("9m38.016s"));
        check(&says("Please try again in 20ms."), Some("20ms"));
        check(&says("Please retry after 20 seconds."), Some("20 seconds"));
        check(&says("Please retry in 38.9s."), Some("38.9s"));
        check("Slow down: try again after 2 minutes", Some("2 minutes"));
        check(&says("Please try again in a moment."), None);
        check(&says("Please retry after"), None);
        check(&says("You sent 'try again in 5s'."), None);
        check(r#"{"error":{"details":[{"retryDelay":5}]}}"#, None);
    }

    #[test]
    fn a_providers_sentence_is_one_short_masked_line() {
        let check = |body: &str, expected: Option<&str>| {
            assert_eq!(read_error(body.as_bytes()).sentence.as_deref(), expected, "{body}");
        };
        let masks = |message: &str, expected: &str| check(message, Some(expected));
        check(r#"{"error":{"message":"No\n\tworker \u0007is free."}}"#, Some("No worker is free."));
        check(r#"{"message":"m","code":1}"#, Some("m"));
        check(r#"{"detail":"d"}"#, Some("d"));
        check(r#"{"error":"e"}"#, Some("e"));
        check("\n\n upstream connect error \nmore", Some("upstream connect error"));
        check("<html><body>no</body></html>", None);
        check(r#"{"error":{}}"#, None);
        check(r#"{"error":{"message":" "}}"#, None);
        check("", None);
        masks(
            "Incorrect API key provided: sk-abc***1234. Find it at https://a.b/c",
            "Incorrect API key provided: *** Find it at https://a.b/c",
        );
        masks("Your api key: ****abcd is invalid", "Your api key: *** is invalid");
        masks("Authorization: Bearer abc.def is wrong", "Authorization: Bearer *** is wrong");
        masks("bad {\"api_key\":\"s3cret\"}", "bad {\"api_key\":***");
        masks("GET /v1?key=abc failed", "GET /v1?key=*** failed");
        masks("see 0123456789abcdef0123 there", "see *** there");
        masks("see QWxhZGRpbjpvcGVuIHNlc2FtZQ== there", "see *** there");
        masks("see (gsk_abcdefg) and 'AIzaSyB' there", "see (*** and '*** there");
        masks(
            "an internal_server_error_of_some_kind at platform.openai.com/docs/guides/error-codes",
            "an internal_server_error_of_some_kind at platform.openai.com/docs/guides/error-codes",
        );
        masks("the tokens: 5 of task-force", "the tokens: 5 of task-force");
        let long = "é ".repeat(400);
        let short = read_error(long.as_bytes()).sentence.expect("a sentence");
        assert_eq!(short.chars().count(), 299, "cut, without the blank at its end");
    }
}
