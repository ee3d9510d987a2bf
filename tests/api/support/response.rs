//! Accessors for an answer of the gateway: its text when it is complete, its error, its retry advice.

use super::client::{BodyEnd, Response};
use std::time::Duration;

impl Response {
    /// The text of a complete chat answer, whole or streamed; otherwise what is wrong with it.
    pub fn chat_text(&self) -> Result<String, String> {
        if self.status != 200 || self.end != BodyEnd::Clean {
            return Err(format!("{} ending {:?}: {}", self.status, self.end, self.text()));
        }
        if !self.header("content-type").is_some_and(|form| form.starts_with("text/event-stream")) {
            return self.json()["choices"][0]["message"]["content"]
                .as_str()
                .map(str::to_owned)
                .ok_or(self.text().to_owned());
        }
        let frames = self.frames();
        let deltas = frames.iter().map(|frame| frame.json()["choices"][0]["delta"]["content"].clone());
        let text = deltas.filter_map(|content| content.as_str().map(str::to_owned)).collect();
        let finished = frames.iter().any(|frame| frame.json()["choices"][0]["finish_reason"].is_string());
        match frames.last().is_some_and(|frame| frame.is_done()) && finished {
            true => Ok(text),
            false => Err(format!("a stream without its end: {}", self.text())),
        }
    }

    /// `error.code`; fails the test when this is no error.
    pub fn code(&self) -> String {
        let error = self.json();
        error["error"]["code"].as_str().unwrap_or_else(|| panic!("no error: {self:?}")).to_owned()
    }

    /// Status and `error.code` together.
    pub fn refusal(&self) -> (u16, String) {
        (self.status, self.code())
    }

    /// The deployment that served, or was tried last.
    pub fn deployment(&self) -> &str {
        self.header("x-tierway-deployment").unwrap_or_else(|| panic!("no deployment: {self:?}"))
    }

    /// The tier that served.
    pub fn tier(&self) -> &str {
        self.header("x-tierway-tier").unwrap_or_else(|| panic!("no tier: {self:?}"))
    }

    /// A header that is a number.
    pub fn number(&self, name: &str) -> u64 {
        let value = self.header(name).unwrap_or_else(|| panic!("no {name}: {self:?}"));
        value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
    }

    /// How many attempts were made.
    pub fn attempts(&self) -> u64 {
        self.number("x-tierway-attempts")
    }

    /// How long the client should wait before it retries; fails the test unless both headers are present,
    /// agree and are positive, and no header forbids a retry; with a 503 one asks for it.
    pub fn retry_after(&self) -> Duration {
        let ms = self.number("retry-after-ms");
        assert!(ms > 0, "no answer advises an immediate retry: {self:?}");
        assert_eq!(self.number("retry-after"), ms.div_ceil(1000), "both headers agree, in whole seconds rounded up");
        let asks = (self.status == 503).then_some("true");
        assert_eq!(self.header("x-should-retry"), asks, "waiting helps: {self:?}");
        Duration::from_millis(ms)
    }

    /// Fails the test unless the answer leaves it to the client whether and when to retry.
    pub fn assert_may_retry(&self) {
        assert_eq!(self.header("x-should-retry"), None, "{self:?}");
        assert_eq!(self.header("retry-after"), None, "{self:?}");
        assert_eq!(self.header("retry-after-ms"), None, "{self:?}");
    }

    /// Fails the test unless the answer forbids a retry and advises no delay.
    pub fn assert_no_retry(&self) {
        assert_eq!(self.header("x-should-retry"), Some("false"), "{self:?}");
        assert_eq!(self.header("retry-after"), None, "{self:?}");
        assert_eq!(self.header("retry-after-ms"), None, "{self:?}");
    }
}
