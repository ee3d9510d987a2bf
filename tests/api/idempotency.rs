//! Idempotency keys: all keys of the gateway are one account at a provider, which gives the answer to one request again
//! to another one with the same idempotency key. So no key can name another one's.

use crate::config::{Config, chat_request};
use crate::support::gateway::{KEY, OTHER_KEY, compile};
use crate::support::{ScriptedProvider, TestGateway, TestRequest, chat_whole};
use std::sync::Arc;
use tierway::domain::secret::IdempotencySecret;
use tierway::store::Stores;
use tierway::store::memory::MemoryLedger;

/// A gateway whose store has this secret.
async fn gateway(provider: &ScriptedProvider, secret: Option<[u8; 32]>) -> TestGateway {
    provider.answers(chat_whole("Hello"));
    let ledger = Arc::new(MemoryLedger::default());
    let idempotency = secret.map(IdempotencySecret::new);
    let stores = Stores { ledger: ledger.clone(), idempotency, ..Stores::memory().await };
    let other = "[[keys]]\nname = \"other\"\npolicy = \"all\"\nsecret = \"env:OTHER_KEY\"";
    let config = Config::of(provider).more(other).text();
    TestGateway::start_with_stores(compile(&config), 1, ledger, stores).await
}

/// What the provider gets of `given` from `key`.
async fn sent(gateway: &TestGateway, provider: &ScriptedProvider, key: &str, given: &[&str]) -> Vec<String> {
    provider.clear();
    let request = TestRequest::new("/v1/chat/completions", chat_request("")).with_key(key);
    let request = given.iter().fold(request, |request, value| request.header("idempotency-key", *value));
    let answer = request.send_to(gateway).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let journal = provider.journal();
    let request = &journal.only().request;
    let sent = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("idempotency-key"));
    sent.map(|(_, value)| value.clone()).collect()
}

#[tokio::test]
async fn an_idempotency_key_is_the_keys_own() {
    let provider = ScriptedProvider::start("eu").await;
    let with_secret = gateway(&provider, Some([7; 32])).await;
    let mine = sent(&with_secret, &provider, KEY, &["once"]).await;
    assert_eq!((mine.len(), mine[0].len()), (1, 64), "{mine:?}");
    assert_eq!(sent(&with_secret, &provider, KEY, &["once"]).await, mine, "the same request again is the same");
    let others = sent(&with_secret, &provider, OTHER_KEY, &["once"]).await;
    assert_ne!(others, mine, "another key cannot make it");
    // Nor by saying what a provider gets.
    assert_ne!(sent(&with_secret, &provider, OTHER_KEY, &[&mine[0]]).await, mine);
    assert_ne!(sent(&with_secret, &provider, KEY, &["twice"]).await, mine);
    let both = sent(&with_secret, &provider, KEY, &["once", "twice"]).await;
    assert!(both.len() == 2 && both[0] == mine[0] && both[1] != both[0], "each of them: {both:?}");
    let elsewhere = gateway(&provider, Some([8; 32])).await;
    assert_ne!(sent(&elsewhere, &provider, KEY, &["once"]).await, mine, "the secret is the store's");
    assert!(sent(&elsewhere, &provider, KEY, &[]).await.is_empty());
}

#[tokio::test]
async fn without_a_store_none_is_passed_on() {
    let provider = ScriptedProvider::start("eu").await;
    let gateway = gateway(&provider, None).await;
    assert!(sent(&gateway, &provider, KEY, &["once"]).await.is_empty());
    assert!(sent(&gateway, &provider, KEY, &["once", "twice"]).await.is_empty());
}
