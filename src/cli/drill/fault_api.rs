//! The fault API of a running gateway: faults that a drill injects there, and ends.
//!
//! Each fault ends by itself; what is ended before is ended so that nothing outlasts the drill. It must never touch a fault
//! that it did not inject.
//!
//! Start reading at [`FaultApi::inject`].

use crate::cli::gateway_client::{GatewayClient, GatewayClientError};
use crate::cli::store::CommandError;
use crate::domain::fault::{FaultEffect, FaultScope, FaultSpec};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Mutex;

const PATH: &str = "/admin/v1/faults";

/// The faults of a drill at a running gateway.
pub(super) struct FaultApi {
    client: Arc<GatewayClient>,
    /// The ids of those that may be in force. Locked while one is injected, so that none is lost where a drill is
    /// interrupted.
    active: Arc<Mutex<Vec<String>>>,
}

impl FaultApi {
    pub(super) fn new(client: GatewayClient) -> Self {
        Self { client: Arc::new(client), active: Arc::default() }
    }

    /// The gateway whose faults these are.
    pub(super) fn gateway(&self) -> &GatewayClient {
        &self.client
    }

    /// Makes sure that faults may be injected, and that none is in force already.
    ///
    /// # Errors
    /// With what to do.
    pub(super) async fn check(&self) -> Result<(), CommandError> {
        let listed = ask(&self.client, Method::GET, PATH, None).await?;
        let others = listed["data"].as_array().map_or(&[][..], |all| all);
        if let Some(other) = others.first() {
            return Err(CommandError::failed(format!(
                "faults are in force at {} already, {} of them, and would be judged too\n  help: wait until {}, or end them: \
                 DELETE {PATH}/{}",
                self.client.url,
                others.len(),
                other["expires"].as_str().unwrap_or("they expire"),
                other["id"].as_str().unwrap_or("ID"),
            )));
        }
        // There is no fault of this id. Who may not end one may not inject one, and is to know that before the load begins.
        end(&self.client, "0").await
    }

    /// Injects `spec`. It is remembered also where the caller does not wait for the answer.
    ///
    /// # Errors
    /// With what to do.
    pub(super) async fn inject(&self, spec: &FaultSpec) -> Result<(), CommandError> {
        let (client, body) = (self.client.clone(), fault(spec));
        let mut active = self.active.clone().lock_owned().await;
        let injecting = tokio::spawn(async move {
            let injected = ask(&client, Method::POST, PATH, Some(&body)).await?;
            active.extend(injected["id"].as_str().map(str::to_owned));
            Ok(())
        });
        injecting.await.unwrap_or_else(|error| Err(CommandError::failed(error)))
    }

    /// Ends every fault that was injected and may still be in force.
    ///
    /// # Errors
    /// One could not be ended; the others were.
    pub(super) async fn end_all(&self) -> Result<(), CommandError> {
        let mut active = self.active.lock().await;
        let mut ended = Ok(());
        for id in active.drain(..) {
            ended = end(&self.client, &id).await.and(ended);
        }
        ended
    }
}

/// A fault as it is asked for. Its end is told in whole seconds.
fn fault(spec: &FaultSpec) -> Value {
    let seconds = spec.lasts.as_millis().div_ceil(1_000).max(1);
    let mut fault = json!({
        "kind": spec.effect.label(),
        "share": spec.share_percent,
        "expires_in": format!("{seconds}s"),
    });
    match spec.effect {
        FaultEffect::Refuse => {}
        FaultEffect::Delay(by) => fault["delay_ms"] = json!(by.as_millis() as u64),
        FaultEffect::Status(status) => fault["status"] = json!(status),
        FaultEffect::Cut { frames } => fault["frames"] = json!(frames),
    }
    match &spec.scope {
        FaultScope::Deployment(name) => fault["deployment"] = json!(name),
        FaultScope::Region(name) => fault["region"] = json!(name),
    }
    fault
}

/// Ends the fault of this id; one that is not in force any more has ended.
async fn end(client: &GatewayClient, id: &str) -> Result<(), CommandError> {
    match exchange(client, Method::DELETE, &format!("{PATH}/{id}"), None).await? {
        (StatusCode::NOT_FOUND, answer) if answer["error"]["code"] == "not_found" => Ok(()),
        (status, answer) => understood(client, status, answer).map(drop),
    }
}

async fn ask(client: &GatewayClient, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CommandError> {
    let (status, answer) = exchange(client, method, path, body).await?;
    understood(client, status, answer)
}

async fn exchange(
    client: &GatewayClient,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, Value), CommandError> {
    let body = body.map(|body| Bytes::from(body.to_string()));
    let (status, answer) = client.exchange(method, path, body).await.map_err(|error| client.refused(error))?;
    Ok((status, serde_json::from_slice(&answer).unwrap_or_default()))
}

/// The answer, or what its status means.
fn understood(client: &GatewayClient, status: StatusCode, answer: Value) -> Result<Value, CommandError> {
    let (url, error) = (&client.url, &answer["error"]);
    if status.is_success() {
        return Ok(answer);
    }
    if error["code"] == "faults_disabled" {
        return Err(CommandError::failed(format!(
            "the gateway at {url} lets no faults be injected\n  help: set [drill] enabled = true in its configuration, \
             if it is a staging gateway: a drill breaks real traffic"
        )));
    }
    match status {
        StatusCode::UNAUTHORIZED => Err(client.refused(GatewayClientError::Token)),
        StatusCode::FORBIDDEN => Err(CommandError::failed(format!(
            "the viewer token may inject no faults at {url}\n  help: put the admin token into TIERWAY_ADMIN_TOKEN"
        ))),
        status => {
            let why = error["message"].as_str().unwrap_or("is this where a gateway of this version serves operators?");
            Err(CommandError::failed(format!("{url}{PATH} answers {status}: {why}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_fault_is_asked_for_in_whole_seconds() {
        let of = |effect, lasts| {
            let scope = FaultScope::Region("us-east".into());
            fault(&FaultSpec { effect, scope, share_percent: 50, lasts: Duration::from_millis(lasts) })
        };
        let expected = json!({ "kind": "status", "status": 503, "region": "us-east", "share": 50, "expires_in": "6s" });
        assert_eq!(of(FaultEffect::Status(503), 6_000), expected);
        assert_eq!(of(FaultEffect::Refuse, 1_500)["expires_in"], "2s");
        assert_eq!(of(FaultEffect::Delay(Duration::from_millis(800)), 10)["expires_in"], "1s");
        assert_eq!(of(FaultEffect::Delay(Duration::from_millis(800)), 10)["delay_ms"], 800);
        assert_eq!(of(FaultEffect::Cut { frames: 5 }, 10)["frames"], 5);
    }
}
