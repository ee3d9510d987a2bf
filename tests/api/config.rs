//! A builder for test configurations: one model at one provider, and what a test adds.
//!
//! The breaker never trips here, so that a test may break a provider a thousand times; tests of breakers
//! have configurations of their own.

use crate::support::ScriptedProvider;

/// The model every configuration here has.
pub const MODEL: &str = "org/model";

/// Thousands of consecutive failures do not trip it.
const PATIENT_BREAKER: &str = "breaker = { failures = 1000000, min_requests = 1000000 }";

/// A configuration being built; each part is lines of TOML.
pub struct Config {
    server: String,
    telemetry: String,
    provider: String,
    deployment: String,
    other_deployments: String,
    model: String,
    routing: String,
    policy: String,
    more: String,
}

impl Config {
    /// [`MODEL`] at `provider`, for one key that may use everything.
    pub fn of(provider: &ScriptedProvider) -> Self {
        Self::at(&provider.base_url())
    }

    /// The same with any base URL.
    pub fn at(base_url: &str) -> Self {
        Self {
            server: String::new(),
            telemetry: String::new(),
            provider: format!("base_url = \"{base_url}\"\n"),
            deployment: String::new(),
            other_deployments: String::new(),
            model: String::new(),
            routing: format!("{PATIENT_BREAKER}\n"),
            policy: String::new(),
            more: String::new(),
        }
    }

    /// Adds a line to `[server]`.
    pub fn server(mut self, line: &str) -> Self {
        add(&mut self.server, line);
        self
    }

    /// Adds a line to `[telemetry]`.
    pub fn telemetry(mut self, line: &str) -> Self {
        add(&mut self.telemetry, line);
        self
    }

    /// Adds a line to the provider.
    pub fn provider(mut self, line: &str) -> Self {
        add(&mut self.provider, line);
        self
    }

    /// Adds members to the model's deployment.
    pub fn deployment(mut self, members: &str) -> Self {
        self.deployment.push_str(&format!(", {members}"));
        self
    }

    /// Adds another deployment of the model, as an inline table.
    pub fn other_deployment(mut self, table: &str) -> Self {
        self.other_deployments.push_str(&format!(", {table}"));
        self
    }

    /// Adds a line to the model.
    pub fn model(mut self, line: &str) -> Self {
        add(&mut self.model, line);
        self
    }

    /// Adds a line to `[routing]`.
    pub fn routing(mut self, line: &str) -> Self {
        add(&mut self.routing, line);
        self
    }

    /// Adds a line to the policy.
    pub fn policy(mut self, line: &str) -> Self {
        add(&mut self.policy, line);
        self
    }

    /// Adds tables.
    pub fn more(mut self, tables: &str) -> Self {
        add(&mut self.more, tables);
        self
    }

    /// The configuration as TOML.
    pub fn text(&self) -> String {
        let Self { server, telemetry, provider, deployment, other_deployments, model, routing, policy, more } = self;
        format!(
            r#"[server]
{server}
[telemetry]
{telemetry}
[providers.eu]
protocol = "openai"
credential = "env:CREDENTIAL"
region = "eu-central"
{provider}
[models."{MODEL}"]
deployments = [{{ provider = "eu"{deployment} }}{other_deployments}]
{model}
[tiers.default]
models = ["{MODEL}"]
[routing]
{routing}
[policies.all]
tiers = ["*"]
{policy}
[[keys]]
name = "app"
policy = "all"
secret = "env:TEST_KEY"
{more}
"#
        )
    }
}

fn add(lines: &mut String, line: &str) {
    lines.push_str(line);
    lines.push('\n');
}

/// A chat request to [`MODEL`] with more members, each followed by a comma: `"stream":true,`.
pub fn chat_request(members: &str) -> String {
    format!(r#"{{"model":"{MODEL}",{members}"messages":[{{"role":"user","content":"Hi"}}]}}"#)
}
