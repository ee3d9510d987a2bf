//! Keys and tokens that are guessed: counted wherever they are presented, and answered later; a valid one never waits.

use crate::config::Config;
use crate::support::gateway::{ADMIN_TOKEN, BEARER, KEY};
use crate::support::{ChatAnswer, Client, ScriptedProvider, TestGateway, chat};
use std::time::Duration;
use tierway::domain::refusal::{KeyRefusal, SecretTarget};
use tierway::domain::secret::KeyHash;

async fn gateway() -> (TestGateway, ScriptedProvider) {
    let provider = ScriptedProvider::start("eu").await;
    provider.answers(chat(ChatAnswer::default()));
    let expired = "[[keys]]\nname = \"old\"\npolicy = \"all\"\nsecret = \"env:OTHER_KEY\"\nexpires = \"2001-01-01\"\n";
    (TestGateway::start(&Config::of(&provider).more(expired).text()).await, provider)
}

async fn status(client: &mut Client, path: &str, authorization: Option<&str>) -> u16 {
    let headers: Vec<(&str, &str)> = authorization.map(|value| ("authorization", value)).into_iter().collect();
    if path.ends_with("completions") {
        client.post(path, &headers, "{}").await;
    } else {
        client.get(path, &headers).await;
    }
    client.response().await.status
}

#[tokio::test]
async fn what_is_refused_is_counted_by_what_it_was_for_and_why() {
    let (gateway, _provider) = gateway().await;
    let mut client = gateway.connect().await;
    let other = format!("Bearer {}", crate::support::gateway::OTHER_KEY);
    let admin = format!("Bearer {ADMIN_TOKEN}");
    for path in ["/v1/chat/completions", "/v1/models", "/v1/models/org/model", "/v1/nothing"] {
        for refused in [None, Some("Bearer guess"), Some(&*other), Some(&*admin)] {
            assert_eq!(status(&mut client, path, refused).await, 401, "{path} {refused:?}");
        }
    }
    for path in ["/admin/v1/status", "/admin/nothing", "/metrics"] {
        for refused in [None, Some("Bearer guess"), Some(BEARER)] {
            assert_eq!(status(&mut client, path, refused).await, 401, "{path} {refused:?}");
        }
    }
    for path in ["/v1/models", "/healthz"] {
        assert_eq!(status(&mut client, path, Some(BEARER)).await, 200);
    }
    for path in ["/admin/v1/status", "/metrics"] {
        assert_eq!(status(&mut client, path, Some(&admin)).await, 200);
    }
    for (target, why, count) in [
        ("clients", "missing", 4.0),
        ("clients", "unknown", 8.0),
        ("clients", "not_valid", 4.0),
        ("admin", "missing", 2.0),
        ("admin", "unknown", 4.0),
        ("admin", "not_valid", 0.0),
        ("metrics", "missing", 1.0),
        ("metrics", "unknown", 2.0),
        ("metrics", "not_valid", 0.0),
    ] {
        let series = format!("tierway_secrets_refused_total{{target=\"{target}\",why=\"{why}\"}}");
        assert_eq!(gateway.metric(&series), count, "{series}");
    }
}

/// Guesses more than are answered at once, from this machine.
fn guess_often(gateway: &TestGateway) {
    let peer = Some(gateway.addr.ip());
    for number in 0..100 {
        let why = KeyRefusal::Unknown(KeyHash::of(&format!("guess {number}")));
        let now = tierway::clock::Clock.now();
        gateway.app.peer_refusals.note(peer, SecretTarget::Admin, &why, &gateway.telemetry.metrics, now);
    }
}

#[tokio::test]
async fn a_guess_waits_and_a_valid_key_from_the_same_address_does_not() {
    let (gateway, _provider) = gateway().await;
    guess_often(&gateway);
    for (number, (path, key)) in [
        ("/v1/models", KEY),
        ("/v1/chat/completions", KEY),
        ("/admin/v1/status", ADMIN_TOKEN),
        ("/metrics", ADMIN_TOKEN),
    ]
    .into_iter()
    .enumerate()
    {
        let (mut guessing, mut honest) = (gateway.connect().await, gateway.connect().await);
        let guess = format!("Bearer another guess {number}");
        let mut refused = std::pin::pin!(status(&mut guessing, path, Some(&guess)));
        // It is on its way, and waits.
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut refused).await.is_err(), "{path}");
        let bearer = format!("Bearer {key}");
        tokio::select! {
            biased;
            status = &mut refused => panic!("{path}: the guess was answered first, with {status}"),
            served = status(&mut honest, path, Some(&bearer)) => assert!(matches!(served, 200 | 400), "{path}: {served}"),
        }
        assert_eq!(refused.await, 401, "{path}");
    }
}

#[tokio::test]
async fn whoever_leaves_while_it_waits_leaves_nothing_held() {
    let (gateway, _provider) = gateway().await;
    guess_often(&gateway);
    let mut client = gateway.connect().await;
    let left = tokio::time::timeout(
        Duration::from_millis(50),
        status(&mut client, "/v1/chat/completions", Some("Bearer one more guess")),
    );
    assert!(left.await.is_err());
    drop(client);
    // The gateway's drop asserts the rest.
}
