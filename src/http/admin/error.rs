//! What an operator receives where a request to the admin API is refused or fails: one row for each reason.
//!
//! The rows are [`ApiError`]s, as those of `/v1` are. A message never contains a token, a secret or a hash.
//!
//! Start reading at [`AdminFailure::api_error`].

use super::input::InputError;
use crate::admin::AdminError;
use crate::domain::call::BodyProblem;
use crate::domain::refusal::Refusal;
use crate::http::error::{ApiError, LEDGER_RETRY_AFTER, Retry, echo};
use http::StatusCode;
use std::time::Duration;

/// When there may be place for another one who watches.
const WATCHER_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why an operator's request is not carried out; nothing was changed then.
#[derive(Debug)]
pub enum AdminFailure {
    /// No token was presented, or one that belongs to no operator.
    NoToken,
    /// Two different tokens were presented.
    SeveralTokens,
    /// The viewer token was presented for an operation that changes something.
    ReadOnlyToken,
    /// A session is to change something, without what its page was given for that.
    NoCsrf,
    /// As many watch as may.
    TooManyWatchers,
    /// There is no such path.
    UnknownUrl(String),
    /// The path exists; these methods are allowed.
    WrongMethod(String),
    /// The content type is not JSON.
    NotJson,
    /// The body was not understood.
    Body(BodyProblem),
    /// A field, parameter or header has a value it must not have.
    Invalid {
        /// Its name.
        param: String,
        /// What is wrong with it, as a sentence.
        message: String,
    },
    /// The key or team is not in the state that `If-Match` names.
    Changed,
    /// The action itself was refused.
    Action(AdminError),
}

impl From<InputError> for AdminFailure {
    fn from(wrong: InputError) -> Self {
        if wrong.at.is_empty() {
            return Self::Body(BodyProblem::NotJson(format!("The body {}. Send a JSON object.", wrong.what)));
        }
        Self::Invalid { message: format!("'{}' {}.", wrong.at, wrong.what), param: wrong.at }
    }
}

impl From<AdminError> for AdminFailure {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Stale => Self::Changed,
            other => Self::Action(other),
        }
    }
}

impl AdminFailure {
    /// The error as the operator reads it.
    pub fn api_error(&self) -> ApiError {
        match self {
            Self::NoToken => ApiError::invalid(
                "invalid_token",
                "No valid token of an operator was given. Send the gateway's admin token as 'Authorization: Bearer TOKEN'.",
            )
            .status(StatusCode::UNAUTHORIZED),
            Self::SeveralTokens => ApiError::refused(&Refusal::SeveralKeys),
            Self::ReadOnlyToken => {
                ApiError::invalid("forbidden", "This token may look and not change anything. Use the admin token.")
                    .status(StatusCode::FORBIDDEN)
            }
            Self::NoCsrf => ApiError::invalid(
                "forbidden",
                "A session changes something only with the `csrf` of GET /admin/v1/session as 'x-tierway-csrf'.",
            )
            .status(StatusCode::FORBIDDEN)
            .at("x-tierway-csrf"),
            Self::TooManyWatchers => ApiError::invalid(
                "slow_down",
                "As many watch this gateway as may at a time. Close another page of the dashboard, or read the history.",
            )
            .status(StatusCode::TOO_MANY_REQUESTS)
            .retry(Retry::After(WATCHER_RETRY_AFTER)),
            Self::UnknownUrl(path) => ApiError::unknown_url(path),
            Self::WrongMethod(allow) => ApiError::wrong_method(allow.clone().into()),
            Self::NotJson => ApiError::invalid(
                "unsupported_media_type",
                "The body is not said to be JSON. Send 'Content-Type: application/json'.",
            )
            .status(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::Body(problem) => ApiError::body(problem),
            Self::Invalid { param, message } => {
                ApiError::invalid("invalid_value", message.clone()).at(echo(param).to_owned())
            }
            Self::Changed => ApiError::invalid(
                "precondition_failed",
                "It is not in the state that 'if-match' names: it was changed meanwhile. Read it again.",
            )
            .status(StatusCode::PRECONDITION_FAILED)
            .at("if-match"),
            Self::Action(error) => refused_action(error),
        }
    }
}

/// The row of an action that was refused or failed.
fn refused_action(error: &AdminError) -> ApiError {
    let message = sentence(&error.to_string());
    let conflict = |message| ApiError::invalid("conflict", message).status(StatusCode::CONFLICT);
    match error {
        AdminError::NotFound { .. } => ApiError::invalid("not_found", message).status(StatusCode::NOT_FOUND),
        AdminError::FaultsDisabled => ApiError::invalid("faults_disabled", message).status(StatusCode::NOT_FOUND),
        AdminError::NoLedger => ApiError::invalid("no_ledger", message).status(StatusCode::NOT_FOUND),
        AdminError::Exists { .. } => conflict(message).at("name"),
        AdminError::SecretTaken { .. } => conflict(message).at("hash"),
        AdminError::InFile { .. }
        | AdminError::Stale
        | AdminError::Deleted { .. }
        | AdminError::TooManySecrets { .. } => conflict(message),
        AdminError::Invalid { field, .. } => ApiError::invalid("invalid_value", message).at(*field),
        AdminError::Unavailable => ApiError::server(
            StatusCode::SERVICE_UNAVAILABLE,
            "store_unavailable",
            "The store cannot be used at the moment. Nothing was changed. Try again when 'retry-after' has passed.",
        )
        .retry(Retry::After(LEDGER_RETRY_AFTER)),
        AdminError::NoRandomBytes => ApiError { log: message.into(), ..ApiError::internal() },
    }
}

/// `text` with a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| format!("{}{}.", first.to_uppercase(), chars.as_str())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{RecordKind, RecordSource};
    use crate::http::error::tests::shown;

    #[tokio::test]
    async fn every_failure_has_a_row() {
        let exists = |kept_in| AdminError::Exists { kind: RecordKind::Key, name: "app".into(), kept_in };
        let rows = [
            ("no_token", AdminFailure::NoToken),
            ("read_only_token", AdminFailure::ReadOnlyToken),
            ("no_csrf", AdminFailure::NoCsrf),
            ("too_many_watchers", AdminFailure::TooManyWatchers),
            ("unknown_url", AdminFailure::UnknownUrl("/admin/v2".into())),
            ("wrong_method", AdminFailure::WrongMethod("GET, HEAD, PATCH".into())),
            ("content_type_is_not_json", AdminFailure::NotJson),
            (
                "body_is_not_json",
                AdminFailure::Body(BodyProblem::NotJson("The body is not an object. Send a JSON object.".into())),
            ),
            (
                "invalid_field",
                AdminFailure::Invalid { param: "budget.limit".into(), message: "'budget.limit' is missing.".into() },
            ),
            ("changed", AdminFailure::Changed),
            ("no_such_key", AdminError::NotFound { kind: RecordKind::Key, name: "app".into() }.into()),
            ("no_ledger", AdminError::NoLedger.into()),
            ("faults_disabled", AdminError::FaultsDisabled.into()),
            ("exists_in_store", exists(RecordSource::Store).into()),
            ("exists_in_file", exists(RecordSource::File).into()),
            ("in_file", AdminError::InFile { kind: RecordKind::Team, name: "growth".into() }.into()),
            ("secret_taken", AdminError::SecretTaken { name: "app".into() }.into()),
            ("stale", AdminError::Stale.into()),
            ("deleted", AdminError::Deleted { name: "app".into() }.into()),
            ("too_many_secrets", AdminError::TooManySecrets { name: "app".into() }.into()),
            (
                "invalid_action",
                AdminError::Invalid { field: "policy", message: "there is no policy 'x'".into() }.into(),
            ),
            ("store_unavailable", AdminError::Unavailable.into()),
            ("no_random_bytes", AdminError::NoRandomBytes.into()),
        ];
        for (name, failure) in rows {
            insta::assert_snapshot!(name, shown(failure.api_error().response()).await);
        }
    }
}
