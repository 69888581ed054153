//! The view of deliveries, and copies of them.

use tower_accepted::store::sqlite::SqliteStore;

use super::steps::{LONG_LEASE, URL, deliver, ended_for, list_all, outbox, take_one};
use crate::site::{Home, options};

#[tokio::test]
async fn view_shows_deliveries_without_secrets() {
    let home = Home::new(options());
    let store = home.store().await;
    let id = ended_for(&store, URL).await;
    let outbox = outbox(&store);
    let delivery = take_one(&outbox, LONG_LEASE).await;
    deliver(&outbox, &delivery).await;
    let sql = home.sql();
    let query = "SELECT id, state, event, url, attempts, response FROM deliveries";
    let row: (String, String, String, String, u32, u16) = sql
        .query_row(query, [], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
            ))
        })
        .unwrap();
    let expected = (
        format!("{id}_0"),
        "delivered".into(),
        "job.succeeded".into(),
        delivery.shown_url().into(),
        1,
        204,
    );
    assert_eq!(row, expected);
    assert_eq!(delivery.shown_url(), "https://receiver.example/hook");
}

#[tokio::test]
async fn copy_of_a_file_has_its_deliveries() {
    let home = Home::new(options());
    let store = home.store().await;
    let id = ended_for(&store, URL).await;
    let target = home.directory().join("copy.db");
    store.backup_to(&target).await.unwrap();
    let copy = SqliteStore::open(&target, options()).await.unwrap();
    assert_eq!(
        list_all(&outbox(&copy)).await,
        list_all(&outbox(&store)).await
    );
    let delivery = take_one(&outbox(&copy), LONG_LEASE).await;
    assert_eq!(delivery.id.job(), id);
}
