//! Settled deliveries are kept for a time.

use std::time::SystemTime;

use tower_accepted::store::{Attempt, AttemptFailure, Settlement};

use super::steps::{LONG_LEASE, URL, deliver, ended_for, outbox, take_all};
use crate::site::{Home, options, until};

#[tokio::test]
async fn settled_deliveries_expire() {
    let home = Home::new(options());
    let store = home.store().await;
    // More than one transaction removes.
    for _ in 0..150 {
        ended_for(&store, URL).await;
    }
    let outbox = outbox(&store);
    let taken = take_all(&outbox, LONG_LEASE).await;
    let (delivered, rest) = taken.split_at(100);
    let (failed, pending) = rest.split_at(49);
    for delivery in delivered {
        deliver(&outbox, delivery).await;
    }
    for delivery in failed {
        let attempt = Attempt::failed(SystemTime::now(), AttemptFailure::Connect);
        let settling = outbox.settle(delivery, Settlement::Failed(attempt));
        settling.await.unwrap();
    }
    let kept = "SELECT min(expires_at - last_at) / 3600000 FROM delivery WHERE state = ";
    assert_eq!(home.number(&format!("{kept} 'delivered'")), 24);
    assert_eq!(home.number(&format!("{kept} 'failed'")), 24 * 7);
    // A delivery keeps its body as long as it may be sent.
    let bodies = "SELECT count(*) FROM delivery WHERE length(body) > 0";
    assert_eq!(home.number(bodies), 50);
    let expire = "UPDATE delivery SET expires_at = 1 WHERE expires_at IS NOT NULL";
    assert_eq!(home.sql().execute(expire, []).unwrap(), 149);
    until(async || home.number("SELECT count(*) FROM delivery") == 1).await;
    let left = home.texts("SELECT job FROM delivery");
    assert_eq!(left, [pending[0].id.job().to_string()]);
}
