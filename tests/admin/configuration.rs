//! The configuration as operators read it: each setting with its origin, and what is wrong with a file that was refused.

use crate::admin_gateway::{AdminGateway, bearer};
use crate::support::gateway::{ADMIN_TOKEN, VIEWER_TOKEN, compile};
use serde_json::Value;
use tierway::cli::reload::apply;
use tierway::config::{ConfigChange, ConfigSource, ProcessEnvironment, load};
use tierway::domain::secret::Secret;

const PATH: &str = "/admin/v1/configuration";

fn setting<'v>(configuration: &'v Value, name: &str) -> &'v Value {
    let settings = configuration["settings"].as_array().expect("a list");
    settings.iter().find(|one| one["setting"] == name).unwrap_or_else(|| panic!("no {name} in {settings:?}"))
}

#[tokio::test]
async fn every_setting_has_its_origin_and_no_secret_is_shown() {
    let admin = AdminGateway::start().await;
    let answer = admin.done(200, "GET", PATH, None).await;
    let viewer_token = setting(&answer, "server.viewer_token");
    assert!(viewer_token["origin"].as_str().is_some_and(|origin| origin.starts_with("file, line ")), "{viewer_token}");
    assert_eq!(setting(&answer, "server.drain")["origin"], "default");
    assert_eq!(answer["refused"], Value::Null);
    for token in [ADMIN_TOKEN, VIEWER_TOKEN] {
        assert!(!answer.to_string().contains(token), "a token is shown");
    }
    assert_eq!(admin.ask("GET", PATH, &bearer(VIEWER_TOKEN), None).await.status, 200, "a viewer may look");
}

#[tokio::test]
async fn a_refused_file_is_reported_until_one_is_applied() {
    let admin = AdminGateway::start().await;
    let token = Secret::new(ADMIN_TOKEN);
    let before = admin.done(200, "GET", PATH, None).await;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("tierway.toml");
    std::fs::write(&path, "[server]\ndrain = \"soon\"\n").expect("it is written");
    let source = ConfigSource::file(&path, &ProcessEnvironment).unwrap_or_else(|problems| panic!("{problems}"));
    let problems = load(&source, &ProcessEnvironment, &[]).expect_err("it is wrong");
    apply(Err(problems), &admin.gateway.app, Some(&token));
    let refused = admin.done(200, "GET", PATH, None).await;
    let said = refused["refused"]["problems"].as_str().expect("a text");
    assert!(said.contains("server.drain"), "{said}");
    assert_eq!(refused["settings"], before["settings"], "the old one stays active");
    let config = admin.config.replace("env:VIEWER_TOKEN", "env:OTHER_KEY");
    apply(Ok(ConfigChange { snapshot: compile(&config), needs_restart: Vec::new() }), &admin.gateway.app, Some(&token));
    assert_eq!(admin.done(200, "GET", PATH, None).await["refused"], Value::Null);
}
