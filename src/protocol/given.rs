//! Members of a body that some provider has a rule for: that they are there, and what is said with them.
//!
//! It never judges them, and never reads a value beyond a short text.
//!
//! Start reading in [`GivenReader::member`].

use std::ops::Range;
use std::sync::Arc;

use crate::domain::body_member::{GivenMember, ListedMembers, MemberValue};
use crate::domain::call::BodyProblem;
use crate::protocol::json::member::{FoundNames, MemberNames, unquoted};
use crate::protocol::json::name_fold::{folds_to, is_plain};
use crate::protocol::json::scan::{JsonError, Scanner};

/// What is read of a tool.
pub(super) const TOOL: MemberNames<1> = MemberNames::below(["type"], [TOOL_TYPE]);
/// The name by which rules know the kind of a tool.
const TOOL_TYPE: &str = "tools[].type";
/// A longer text is no word.
const MAX_WORD: usize = 64;

/// Collects the listed members of one body.
pub(super) struct GivenReader<'a> {
    body: &'a str,
    listed: &'a ListedMembers,
    /// Whether a tool of this type is run by the client itself, in the body's dialect.
    is_clients: fn(&str) -> bool,
    /// Some tool is run by the provider.
    provider_runs: bool,
    given: Vec<GivenMember>,
    problem: Option<BodyProblem>,
}

impl<'a> GivenReader<'a> {
    pub(super) fn new(body: &'a str, listed: &'a ListedMembers, is_clients: fn(&str) -> bool) -> Self {
        Self { body, listed, is_clients, provider_runs: false, given: Vec::new(), problem: None }
    }

    /// Whether the provider is asked to run a tool itself: what that reads is not in the body.
    pub(super) fn provider_runs_tools(&self) -> bool {
        self.provider_runs
    }

    /// What was collected.
    ///
    /// # Errors
    /// What is wrong with a tool's type.
    pub(super) fn end(self) -> Result<Vec<GivenMember>, BodyProblem> {
        self.problem.map_or(Ok(self.given), Err)
    }

    /// Reads the value of a member of the body that is called `name`.
    #[inline]
    pub(super) fn member(&mut self, name: &str, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        let value = scanner.value_span()?;
        self.passed(name, value);
        Ok(())
    }

    /// Takes note of a member of the body that is called `name` and was read.
    #[inline]
    pub(super) fn passed(&mut self, name: &str, value: Range<usize>) {
        if let Some(listed) = self.listed.find(name) {
            self.note(listed.clone(), value);
        } else if !is_plain(name) {
            self.note_folded(name, &value);
        }
    }

    /// Reads the tools: those that the provider runs cost what it says.
    pub(super) fn tools(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        let start = scanner.at();
        if scanner.next() != Some(b'[') {
            return self.member("tools", scanner);
        }
        scanner.list(|scanner| match scanner.next() {
            Some(b'{') => self.tool(scanner),
            _ => scanner.value(),
        })?;
        if let Some(listed) = self.listed.find("tools") {
            self.note(listed.clone(), start..scanner.at());
        }
        Ok(())
    }

    fn tool(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        let mut found = FoundNames::default();
        let body = self.body;
        scanner.object(|scanner, name| {
            let index = unquoted(&body[name]).and_then(|name| TOOL.find(&name, &mut found, &mut self.problem));
            let value = scanner.value_span()?;
            if index.is_some() && !unquoted(&body[value.clone()]).is_some_and(|word| (self.is_clients)(&word)) {
                self.provider_runs = true;
                if let Some(listed) = self.listed.find(TOOL_TYPE) {
                    self.note(listed.clone(), value);
                }
            }
            Ok(())
        })
    }

    /// A member that some providers take for one that is listed.
    #[cold]
    fn note_folded(&mut self, name: &str, value: &Range<usize>) {
        let known = self.listed.iter().find(|known| folds_to(name, known));
        if let Some(known) = known {
            self.note(known.clone(), value.clone());
        }
    }

    #[cold]
    fn note(&mut self, name: Arc<str>, value: Range<usize>) {
        let text = &self.body[value];
        let is_empty_list = || text.strip_prefix('[').is_some_and(|rest| rest.trim_ascii_start() == "]");
        let value = match unquoted(text) {
            Some(word) if word.len() <= MAX_WORD => MemberValue::Word(word.into()),
            None if matches!(text, "null" | "false") || is_empty_list() => MemberValue::Off,
            _ => MemberValue::Other,
        };
        self.given.push(GivenMember { name, value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::Endpoint;
    use crate::protocol::read_request;

    fn check(endpoint: Endpoint, members: &str, expected: &[(&str, MemberValue)]) {
        let listed = ListedMembers::of(["service_tier", "models", TOOL_TYPE, "provideroptions"].map(Into::into));
        let body = format!("{{\"model\":\"m\",\"max_tokens\":1,{members}}}");
        let call =
            read_request(endpoint, body.into(), &listed).unwrap_or_else(|problem| panic!("{members}: {problem:?}"));
        let given: Vec<_> = call.metadata().given.iter().map(|one| (&*one.name, one.value.clone())).collect();
        assert_eq!(given, expected, "{members}");
    }

    #[test]
    fn listed_members_are_seen_wherever_they_are_and_however_they_are_written() {
        let word = |word: &str| MemberValue::Word(word.into());
        for endpoint in Endpoint::ALL {
            let check = |members: &str, expected: &[(&str, MemberValue)]| check(endpoint, members, expected);
            check(r#""temperature":1,"x":{"models":["a"]},"stop":"models""#, &[]);
            check(r#""service_tier":"priority""#, &[("service_tier", word("priority"))]);
            check(r#""service_t\u0069er":"fl\u0065x""#, &[("service_tier", word("flex"))]);
            check(
                r#""SERVICE_TIER":"flex","\u017fervice_tier":1"#,
                &[("service_tier", word("flex")), ("service_tier", MemberValue::Other)],
            );
            check(
                r#""provideroptions":{},"providerOptions":null"#,
                &[("provideroptions", MemberValue::Other), ("provideroptions", MemberValue::Off)],
            );
            check(
                r#""models":[ ],"service_tier":false"#,
                &[("models", MemberValue::Off), ("service_tier", MemberValue::Off)],
            );
            check(r#""models":["a"]"#, &[("models", MemberValue::Other)]);
            check(&format!("\"models\":\"{}\"", "a".repeat(65)), &[("models", MemberValue::Other)]);
        }
    }

    #[test]
    fn tools_that_the_provider_runs_are_seen() {
        let check = |members: &str, expected: &[(&str, MemberValue)]| check(Endpoint::Chat, members, expected);
        check(
            r#""tools":[{"type":"function","function":{"parameters":{"type":"web_search"}}},{"type":"custom"},{}]"#,
            &[],
        );
        check(r#""tools":null"#, &[]);
        check(r#""tools":[{"type":"web_search"},7]"#, &[(TOOL_TYPE, MemberValue::Word("web_search".into()))]);
        check(r#""tools":[{"type":{}}]"#, &[(TOOL_TYPE, MemberValue::Other)]);
    }
}
