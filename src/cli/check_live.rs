//! `tierway check --live`: asks every provider for its models, with each of its credentials, and whether it has the
//! endpoints that are configured for it.
//!
//! It never shows a credential, and what a provider says only masked.
//!
//! Start reading at [`check_live`].

use super::provider_probe::{ProbeResult, ProbeRow, probe, said};
use super::table::{NONE, table};
use crate::config::Snapshot;
use serde_json::{Value, json};
use std::fmt::Alignment;
use std::io::{self, Write};

/// Asks every provider of `snapshot` and prints a row for each credential, or JSON. Returns whether all went well: every
/// provider listed its models, the configured ones among them.
///
/// # Errors
/// If the system refuses what it needs, or the result cannot be written.
pub(super) fn check_live(snapshot: &Snapshot, json: bool) -> io::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = runtime.block_on(probe(snapshot));
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    let is_good = rows.iter().all(ProbeRow::is_good);
    let mut out = anstream::stdout();
    if json {
        let rows: Vec<Value> = rows.iter().map(ProbeRow::json).collect();
        writeln!(out, "{:#}", json!({ "ok": is_good, "providers": rows }))?;
    } else {
        write!(out, "\n{}", text(&rows))?;
    }
    Ok(is_good)
}

impl ProbeRow {
    fn credential(&self) -> &str {
        self.credential.as_deref().unwrap_or(NONE)
    }

    fn cells(&self) -> Vec<String> {
        let [status, time, models, said] = match &self.result {
            ProbeResult::Simulated => [NONE.to_owned(), NONE.to_owned(), NONE.to_owned(), "simulated".to_owned()],
            ProbeResult::NotAsked(why) => [NONE.to_owned(), NONE.to_owned(), NONE.to_owned(), why.clone()],
            ProbeResult::Asked { reply, missing, configured, endpoints_missing } => [
                reply.status.map_or_else(|| NONE.to_owned(), |status| status.to_string()),
                format!("{} ms", reply.elapsed.as_millis()),
                match &reply.models {
                    Some(_) => format!("{} of {configured}", configured - missing.len()),
                    None => NONE.to_owned(),
                },
                said(reply, missing, endpoints_missing),
            ],
        };
        vec![self.provider.to_string(), self.credential().to_owned(), status, time, models, said]
    }

    fn json(&self) -> Value {
        let (name, credential, ok) = (&*self.provider, self.credential.as_deref(), self.is_good());
        match &self.result {
            ProbeResult::Simulated => json!({ "provider": name, "ok": ok, "simulated": true }),
            ProbeResult::NotAsked(why) => {
                json!({ "provider": name, "credential": credential, "ok": ok, "simulated": false, "said": why })
            }
            ProbeResult::Asked { reply, missing, configured, endpoints_missing } => json!({
                "provider": name,
                "credential": credential,
                "ok": ok,
                "simulated": false,
                "status": reply.status,
                "elapsed_ms": u64::try_from(reply.elapsed.as_millis()).unwrap_or(u64::MAX),
                "models_configured": configured,
                "models_listed": reply.models.as_ref().map(Vec::len),
                "models_missing": reply.models.as_ref().map(|_| missing),
                "endpoints_missing": endpoints_missing.iter().map(|endpoint| endpoint.name()).collect::<Vec<_>>(),
                "said": Some(said(reply, missing, endpoints_missing)).filter(|said| !said.is_empty()),
            }),
        }
    }
}

fn text(rows: &[ProbeRow]) -> String {
    const HEAD: [(&str, Alignment); 6] = [
        ("provider", Alignment::Left),
        ("credential", Alignment::Left),
        ("status", Alignment::Right),
        ("time", Alignment::Right),
        ("models", Alignment::Right),
        ("", Alignment::Left),
    ];
    table(&HEAD, &rows.iter().map(ProbeRow::cells).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call::Endpoint;
    use crate::upstream::ModelsReply;
    use std::sync::Arc;
    use std::time::Duration;

    fn row(status: Option<u16>, models: Option<&[&str]>, said: Option<&str>, configured: &[&str]) -> ProbeRow {
        let models = models.map(|names| names.iter().map(ToString::to_string).collect());
        let (said, elapsed) = (said.map(Into::into), Duration::from_millis(12));
        let reply = ModelsReply { status, models, said, date_unix_s: None, elapsed };
        let configured: Vec<Arc<str>> = configured.iter().map(|name| (*name).into()).collect();
        let result = ProbeResult::of(reply, &configured, Vec::new());
        ProbeRow { provider: "p".into(), credential: Some("KEY".into()), result }
    }

    #[test]
    fn a_row_says_what_is_wrong() {
        let check = |row: &ProbeRow, good: bool, expected: &str| {
            assert_eq!((row.is_good(), row.cells().join("|").as_str()), (good, expected));
        };
        check(&row(Some(200), Some(&["a", "b"]), None, &["a"]), true, "p|KEY|200|12 ms|1 of 1|");
        check(&row(Some(200), Some(&["models/a", "b:latest"]), None, &["a", "b"]), true, "p|KEY|200|12 ms|2 of 2|");
        check(&row(Some(200), Some(&["b"]), None, &["a", "b"]), false, "p|KEY|200|12 ms|1 of 2|not listed: a");
        check(&row(Some(401), None, Some("No."), &["a"]), false, "p|KEY|401|12 ms|-|No.");
        check(&row(Some(404), None, None, &["a"]), false, "p|KEY|404|12 ms|-|there is no /models below the base URL");
        check(&row(Some(403), None, None, &["a"]), false, "p|KEY|403|12 ms|-|it refuses the credential");
        check(&row(Some(500), None, None, &["a"]), false, "p|KEY|500|12 ms|-|it lists no models, and does not say why");
        assert!(row(Some(308), None, Some("<html>"), &["a"]).cells().concat().contains("it redirects"));
        check(&row(None, None, Some("refused"), &["a"]), false, "p|KEY|-|12 ms|-|refused");
        let mut lacking = row(Some(200), Some(&["a"]), None, &["a"]);
        if let ProbeResult::Asked { endpoints_missing, .. } = &mut lacking.result {
            *endpoints_missing = vec![Endpoint::Messages, Endpoint::Responses];
        }
        check(&lacking, false, "p|KEY|200|12 ms|1 of 1|it has no /messages, /responses");
    }
}
