//! A ledger that can take no more: who pays from a budget is refused before anything is sent, others are served.

use crate::budgets::{answer_using, budget, price, priced_config, spent, worst_case};
use crate::support::gateway::{OTHER_KEY, compile};
use crate::support::{ScriptedProvider, TestGateway, TestRequest, chat};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tierway::domain::receipt::Receipt;
use tierway::store::memory::MemoryLedger;
use tierway::store::{Ledger, LedgerStatus, ReceiptRoom, Stores};

/// Has no room while `full`.
struct FillingLedger {
    kept: Arc<MemoryLedger>,
    full: AtomicBool,
}

impl Ledger for FillingLedger {
    fn reserve(&self) -> Option<ReceiptRoom> {
        (!self.full.load(Ordering::SeqCst)).then(ReceiptRoom::unlimited)
    }

    fn append(&self, receipt: &Arc<Receipt>, room: Option<ReceiptRoom>) {
        assert!(receipt.charges.is_empty() || room.is_some(), "what is charged has room: {receipt:?}");
        self.kept.append(receipt, room);
    }

    fn status(&self) -> LedgerStatus {
        self.kept.status()
    }
}

#[tokio::test]
async fn a_budgeted_request_is_sent_only_if_its_receipt_has_room() {
    let provider = ScriptedProvider::start("p").await;
    provider.answers(chat(answer_using(30, 10)));
    let request = TestRequest::chat("small");
    let free = "[policies.free]\nmodels = [\"*\"]\n";
    let config = priced_config(&[("p", &provider)], &budget(10 * worst_case(&request)), free);
    let (one, other) = config.rsplit_once("policy = \"paying\"").expect("two keys have it");
    let config = format!("{one}policy = \"free\"{other}");
    let kept = Arc::new(MemoryLedger::default());
    let ledger = Arc::new(FillingLedger { kept: kept.clone(), full: AtomicBool::new(true) });
    let stores = Stores { ledger: ledger.clone(), ..Stores::memory().await };
    let gateway = TestGateway::start_with_stores(compile(&config), 1, kept, stores).await;
    let refused = request.send_to(&gateway).await;
    assert_eq!(refused.refusal(), (503, "ledger_unavailable".to_owned()));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(provider.attempts(), 0, "nothing was sent");
    let mut client = gateway.connect().await;
    client.post("/v1/chat/completions", &[("authorization", &format!("Bearer {OTHER_KEY}"))], request.body()).await;
    assert_eq!(client.response().await.status, 200, "no budget pays for it");
    assert_eq!(spent(&gateway, "one", 2).await, 0);
    ledger.full.store(false, Ordering::SeqCst);
    assert_eq!(request.send_to(&gateway).await.status, 200);
    assert_eq!(spent(&gateway, "one", 3).await, price(30, 10));
}
