//! The posture of a gateway: six questions that a buyer asks, each answered from what was measured, with its source and date, or
//! with how to measure it.
//!
//! Nothing is promised here, and nothing estimated: what the ledger, the configuration or a stored report of a drill does not say
//! is not said.
//!
//! Start reading at [`AdminOperations::posture`]; the answers are in [`answers`].

mod answers;

use super::{AdminError, AdminOperations};
use crate::config::Snapshot;
use crate::domain::drill::report::DrillReport;
use crate::domain::policy::Policy;
use crate::domain::posture::{PostureQuery, PostureTally};
use crate::domain::sla::closing::SlaClosing;
use crate::domain::sla::report::SlaReport;
use std::sync::Arc;

/// How far back the ledger is read, in milliseconds: 30 days.
const LEDGER_MS: i64 = 30 * 86_400_000;

/// The six answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Posture {
    /// The policy that they are about; `None`: all.
    pub policy: Option<Arc<str>>,
    /// The ledger was read from this instant, in Unix milliseconds, …
    pub since_unix_ms: i64,
    /// … to this one: when the answers were made.
    pub until_unix_ms: i64,
    /// In the order of the questions.
    pub answers: Vec<PostureAnswer>,
}

/// The answer to one question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostureAnswer {
    /// What is asked.
    pub question: &'static str,
    /// Whether anything was measured. What is only configured is not.
    pub measured: bool,
    /// What is known.
    pub facts: Vec<PostureFact>,
    /// How to measure what is not known; `None`: everything is.
    pub how: Option<String>,
}

/// Something that is known, and where from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostureFact {
    /// What it is about.
    pub topic: String,
    /// What is known of it, with units.
    pub value: String,
    /// Where it is from: the ledger, the configuration, a drill.
    pub source: String,
    /// The first instant that it covers, in Unix milliseconds; `None`: one instant only.
    pub since_unix_ms: Option<i64>,
    /// The last instant that it covers.
    pub at_unix_ms: i64,
}

/// Everything that the answers are made of.
struct PostureEvidence<'a> {
    snapshot: &'a Snapshot,
    /// Those that are asked about, in file order.
    policies: Vec<&'a Arc<Policy>>,
    query: PostureQuery,
    tally: PostureTally,
    drills: Vec<DrillReport>,
    slas: Vec<SlaReport>,
    closings: Vec<SlaClosing>,
}

impl AdminOperations {
    /// The answers for `policy`, or for all policies, as they are at `now_unix_ms`.
    ///
    /// # Errors
    /// [`AdminError::Invalid`] for a policy that is not configured, [`AdminError::NoLedger`] or [`AdminError::Unavailable`].
    pub async fn posture(
        &self,
        snapshot: &Snapshot,
        policy: Option<&str>,
        now_unix_ms: i64,
    ) -> Result<Posture, AdminError> {
        let wanted = |one: &&Arc<Policy>| policy.is_none_or(|name| *one.name == *name);
        let policies: Vec<_> = snapshot.policies.iter().filter(wanted).collect();
        if let Some(name) = policy.filter(|_| policies.is_empty()) {
            let known: Vec<&str> = snapshot.policies.iter().map(|policy| &*policy.name).collect();
            let message = format!("there is no policy '{name}' in the configuration; there are: {}", known.join(", "));
            return Err(AdminError::invalid("policy", message));
        }
        let query = PostureQuery {
            policy: policy.map(Arc::from),
            since_unix_ms: now_unix_ms.saturating_sub(LEDGER_MS),
            until_unix_ms: now_unix_ms,
        };
        let tally = self.reports()?.posture(query.clone()).await?;
        let mut slas = Vec::new();
        for one in policies.iter().filter(|policy| policy.sla.is_some()) {
            slas.extend(self.sla_reports(snapshot, Some(&*one.name), None, now_unix_ms).await?);
        }
        let mut closings = Vec::new();
        for promised in self.keyring.sla_promised().await? {
            if policy.is_none_or(|name| *promised.policy == *name) {
                closings.extend(self.keyring.sla_closings(promised.policy, promised.month).await?);
            }
        }
        let drills = self.keyring.drill_reports().await?;
        let evidence = PostureEvidence { snapshot, policies, query, tally, drills, slas, closings };
        let PostureQuery { policy, since_unix_ms, until_unix_ms } = evidence.query.clone();
        Ok(Posture { policy, since_unix_ms, until_unix_ms, answers: answers::all(&evidence) })
    }
}
