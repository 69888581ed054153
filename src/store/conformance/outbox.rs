//! Checks of the deliveries that ends record.

use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use super::{
    fixtures::{POLL_INTERVAL, cancel, claim, finish_with, finish_without, forget},
    violation::{CheckResult, Violation, ensure, ensure_eq, within},
};
use crate::{
    job::{CallbackTarget, ErrorCode, JobId},
    store::{
        Attempt, AttemptFailure, Delivery, DeliveryFilter, DeliveryId, DeliveryState, Finished,
        NewJob, ReceiverRoom, ReceiverStanding, SendRoom, Settlement, SharedOutbox, Store,
    },
};

/// A lease that does not end during a check.
const LONG_LEASE: Duration = Duration::from_secs(600);
const SHORT_LEASE: Duration = Duration::from_millis(300);

const ENDS: [&str; 3] = ["job.succeeded", "job.failed", "job.canceled"];

type OutboxOf<S> = SharedOutbox<<S as Store>::Error>;

fn outbox<S: Store>(store: &S) -> CheckResult<OutboxOf<S>> {
    let outbox = store.outbox();
    outbox.ok_or_else(|| Violation::new("expected the store to have an outbox"))
}

fn target(url: &str, events: &[&str]) -> CallbackTarget {
    let mut target = CallbackTarget::new(url, events.iter().map(|&event| event.to_owned()));
    target.monitor = "https://api.example/jobs/1".to_owned();
    target
}

/// Accepts a job with these targets.
async fn claim_with<S: Store>(
    store: &S,
    targets: impl IntoIterator<Item = CallbackTarget>,
) -> CheckResult<(JobId, S::Claim)> {
    let mut job = NewJob::new(JobId::random());
    job.callbacks = Some(targets.into_iter().collect());
    Ok((job.id, claim(store, job).await?))
}

/// Ends a job that notifies `url` of its end.
async fn end_for<S: Store>(store: &S, url: &str) -> CheckResult<JobId> {
    let (id, claim) = claim_with(store, [target(url, &ENDS)]).await?;
    let finished = finish_with(store, &claim, "done").await?;
    ensure_eq("the first end", finished, Finished::First)?;
    Ok(id)
}

fn room(lease: Duration) -> SendRoom {
    SendRoom::new(64, 16, lease)
}

async fn take_now<S: Store>(outbox: &OutboxOf<S>, room: SendRoom) -> CheckResult<Vec<Delivery>> {
    let taken = within("deliveries to be leased", outbox.take(room)).await??;
    Ok(taken.deliveries)
}

/// Leases deliveries until there are `count`. A store may need time to begin.
async fn take<S: Store>(
    outbox: &OutboxOf<S>,
    count: usize,
    lease: Duration,
) -> CheckResult<Vec<Delivery>> {
    let taking = async {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(take_now::<S>(outbox, room(lease)).await?);
            sleep(POLL_INTERVAL).await;
        }
        Ok(all)
    };
    let taken: CheckResult<Vec<Delivery>> = within("deliveries to be due", taking).await?;
    let taken = taken?;
    ensure_eq("leased deliveries", taken.len(), count)?;
    Ok(taken)
}

async fn take_one<S: Store>(outbox: &OutboxOf<S>, lease: Duration) -> CheckResult<Delivery> {
    let taken = take::<S>(outbox, 1, lease).await?;
    taken
        .into_iter()
        .next()
        .ok_or_else(|| Violation::new("expected a delivery"))
}

async fn settle<S: Store>(
    outbox: &OutboxOf<S>,
    delivery: &Delivery,
    settlement: Settlement,
) -> CheckResult {
    Ok(within(
        "a delivery to be settled",
        outbox.settle(delivery, settlement),
    )
    .await??)
}

async fn of_job<S: Store>(outbox: &OutboxOf<S>, id: JobId) -> CheckResult<Vec<Delivery>> {
    Ok(within("the deliveries of a job", outbox.of_job(id)).await??)
}

/// Looks until a job has a delivery for which `is_true`. The index of a store may lag.
async fn until_one<S: Store>(
    outbox: &OutboxOf<S>,
    id: JobId,
    expected: &str,
    is_true: impl Fn(&Delivery) -> bool,
) -> CheckResult<Delivery> {
    let looking = async {
        loop {
            let found = of_job::<S>(outbox, id).await?;
            if let [delivery] = &found[..]
                && is_true(delivery)
            {
                return Ok(delivery.clone());
            }
            sleep(POLL_INTERVAL).await;
        }
    };
    within(expected, looking).await?
}

fn failed(status: u16) -> Attempt {
    Attempt::answered(SystemTime::now(), status)
}

pub(super) async fn end_records_its_deliveries<S: Store>(store: S) -> CheckResult {
    let outbox = outbox(&store)?;
    let targets = [
        target("https://one.example/hook?secret", &["job.failed"]),
        target(
            "https://two.example/hook",
            &["job.started", "job.succeeded"],
        ),
        target("https://three.example/", &ENDS),
    ];
    let (id, claim) = claim_with(&store, targets).await?;
    ensure(
        of_job::<S>(&outbox, id).await?.is_empty(),
        "no delivery before the end",
    )?;
    finish_with(&store, &claim, "done").await?;
    let mut recorded = of_job::<S>(&outbox, id).await?;
    ensure_eq("recorded deliveries", recorded.len(), 2)?;
    recorded.sort_by_key(|delivery| delivery.id);
    let mut taken = take::<S>(&outbox, 2, LONG_LEASE).await?;
    taken.sort_by_key(|delivery| delivery.id);
    for (number, delivery) in [1, 2].into_iter().zip(&taken) {
        ensure_eq("id", delivery.id, DeliveryId::new(id, number))?;
        ensure_eq("event", &*delivery.event, "job.succeeded")?;
        ensure_eq("attempts", delivery.attempts, 0)?;
        let body: serde_json::Value = serde_json::from_slice(&delivery.body)
            .map_err(|error| Violation::new(format!("expected JSON: {error}")))?;
        ensure_eq("type", &body["type"], &"job.succeeded".into())?;
        ensure_eq(
            "id in the body",
            &body["data"]["id"],
            &id.to_string().into(),
        )?;
        let monitor = "https://api.example/jobs/1".into();
        ensure_eq("monitor in the body", &body["data"]["self"], &monitor)?;
    }
    for (recorded, taken) in recorded.iter().zip(&taken) {
        ensure_eq("recorded id", recorded.id, taken.id)?;
        ensure(recorded.body.is_empty(), "a list to leave out bodies")?;
    }
    Ok(())
}

pub(super) async fn every_end_records_a_delivery<S: Store>(store: S) -> CheckResult {
    let outbox = outbox(&store)?;
    let to = || [target("https://receiver.example/", &ENDS)];
    let (failed, claim) = claim_with(&store, to()).await?;
    finish_without(&store, &claim, ErrorCode::Panic).await?;
    let (canceled, _claim) = claim_with(&store, to()).await?;
    cancel(&store, canceled).await?;
    let (deleted, _claim) = claim_with(&store, to()).await?;
    forget(&store, deleted).await?;
    for (id, event) in [
        (failed, "job.failed"),
        (canceled, "job.canceled"),
        (deleted, "job.canceled"),
    ] {
        let recorded = until_one::<S>(&outbox, id, "an end to record its delivery", |_| true);
        ensure_eq("event", &*recorded.await?.event, event)?;
    }
    Ok(())
}

pub(super) async fn second_end_records_no_delivery<S: Store>(store: S) -> CheckResult {
    let outbox = outbox(&store)?;
    let (id, claim) = claim_with(&store, [target("https://receiver.example/", &ENDS)]).await?;
    cancel(&store, id).await?;
    finish_with(&store, &claim, "too late").await?;
    cancel(&store, id).await?;
    let canceled = until_one::<S>(&outbox, id, "one delivery", |_| true).await?;
    ensure_eq("event", &*canceled.event, "job.canceled")
}

pub(super) async fn delivery_outlives_its_job<S: Store>(store: S) -> CheckResult {
    let outbox = outbox(&store)?;
    let id = end_for(&store, "https://receiver.example/").await?;
    forget(&store, id).await?;
    let delivery = take_one::<S>(&outbox, LONG_LEASE).await?;
    ensure_eq("id", delivery.id.job(), id)?;
    ensure_eq("event", &*delivery.event, "job.succeeded")
}

pub(super) async fn leased_delivery_is_not_taken<S: Store>(store: S) -> CheckResult {
    let outbox = outbox(&store)?;
    end_for(&store, "https://receiver.example/").await?;
    let delivery = take_one::<S>(&outbox, LONG_LEASE).await?;
    let again = take_now::<S>(&outbox, room(LONG_LEASE)).await?;
    ensure(again.is_empty(), "a leased delivery not to be taken again")?;
    settle::<S>(&outbox, &delivery, Settlement::Release).await?;
    let again = take_one::<S>(&outbox, LONG_LEASE).await?;
    ensure_eq("released delivery", &again.id, &delivery.id)?;
    ensure_eq("attempts", again.attempts, 0)?;
    ensure_eq("body", again.body, delivery.body)
}

pub(super) async fn ended_lease_is_taken_again<S: Store>(store: S) -> CheckResult {
    let outbox = outbox(&store)?;
    end_for(&store, "https://receiver.example/").await?;
    let first = take_one::<S>(&outbox, SHORT_LEASE).await?;
    let second = take_one::<S>(&outbox, LONG_LEASE).await?;
    ensure_eq("delivery whose lease has ended", second.id, first.id)
}

pub(super) async fn delivered_is_not_taken<S: Store>(store: S) -> CheckResult {
    let outbox = outbox(&store)?;
    let id = end_for(&store, "https://receiver.example/").await?;
    let delivery = take_one::<S>(&outbox, LONG_LEASE).await?;
    let attempt = Attempt::answered(SystemTime::now(), 204);
    settle::<S>(&outbox, &delivery, Settlement::Delivered(attempt)).await?;
    let is_delivered = |delivery: &Delivery| delivery.state == DeliveryState::Delivered;
    let settled = until_one::<S>(&outbox, id, "a delivery to be delivered", is_delivered).await?;
    ensure_eq("attempts", settled.attempts, 1)?;
    let last = settled.last.and_then(|last| last.status);
    ensure_eq("status of the attempt", last, Some(204))?;
    // A settlement of the same lease comes too late.
    settle::<S>(&outbox, &delivery, Settlement::Failed(failed(500))).await?;
    let later = until_one::<S>(&outbox, id, "a settled delivery", |_| true).await?;
    ensure_eq(
        "state after a late settlement",
        later.state,
        DeliveryState::Delivered,
    )?;
    let found = within("a redelivery", outbox.redeliver(delivery.id)).await??;
    ensure(!found, "a delivered delivery not to be redelivered")
}

pub(super) async fn failed_attempt_is_retried_later<S: Store>(store: S) -> CheckResult {
    let outbox = outbox(&store)?;
    let id = end_for(&store, "https://receiver.example/").await?;
    let delivery = take_one::<S>(&outbox, LONG_LEASE).await?;
    let later = SystemTime::now() + LONG_LEASE;
    settle::<S>(&outbox, &delivery, Settlement::Retry(failed(503), later)).await?;
    let has_failed = |delivery: &Delivery| delivery.attempts == 1;
    let waiting = until_one::<S>(&outbox, id, "an attempt to be recorded", has_failed).await?;
    let due = waiting
        .due_at()
        .and_then(|due| due.duration_since(SystemTime::now()).ok());
    ensure(
        due.is_some_and(|due| due > LONG_LEASE / 2),
        "the next attempt to be due later",
    )?;
    let taken = within("a take", outbox.take(room(LONG_LEASE))).await??;
    ensure(taken.deliveries.is_empty(), "nothing to be due")?;
    ensure(taken.next_at.is_some(), "the time of the next attempt")?;
    // The application redelivers it at once, with all attempts.
    let found = within("a redelivery", outbox.redeliver(delivery.id)).await??;
    ensure(found, "a pending delivery to be redelivered")?;
    let again = take_one::<S>(&outbox, LONG_LEASE).await?;
    ensure_eq("attempts after a redelivery", again.attempts, 0)?;
    ensure_eq("body", again.body, delivery.body)
}

pub(super) async fn failed_delivery_can_be_redelivered<S: Store>(store: S) -> CheckResult {
    let outbox = outbox(&store)?;
    let id = end_for(&store, "https://receiver.example/").await?;
    let delivery = take_one::<S>(&outbox, LONG_LEASE).await?;
    let reset = Attempt::failed(SystemTime::now(), AttemptFailure::Broken);
    settle::<S>(&outbox, &delivery, Settlement::Failed(reset)).await?;
    let has_failed = |delivery: &Delivery| delivery.state == DeliveryState::Failed;
    until_one::<S>(&outbox, id, "a delivery to fail", has_failed).await?;
    let none = take_now::<S>(&outbox, room(LONG_LEASE)).await?;
    ensure(none.is_empty(), "a failed delivery not to be taken")?;
    ensure(
        within("a redelivery", outbox.redeliver(delivery.id)).await??,
        "a failed delivery to be redelivered",
    )?;
    let again = take_one::<S>(&outbox, LONG_LEASE).await?;
    ensure_eq("body", again.body, delivery.body)?;
    let unknown = DeliveryId::new(JobId::random(), 0);
    let found = within("a redelivery", outbox.redeliver(unknown)).await??;
    ensure(!found, "an unknown delivery not to be redelivered")
}

pub(super) async fn full_receiver_holds_up_no_other<S: Store>(store: S) -> CheckResult {
    let outbox = outbox(&store)?;
    for _ in 0..20 {
        end_for(&store, "https://slow.example/hook").await?;
    }
    end_for(&store, "https://live.example/hook").await?;
    let mut room = SendRoom::new(64, 16, LONG_LEASE);
    let slow = ReceiverRoom {
        used: 3,
        share: 5,
        standing: ReceiverStanding::Unknown,
    };
    room.set_receiver("https://slow.example", slow);
    // Two more for the slow one, and one for the other.
    let taking = async {
        let mut all = Vec::new();
        while all.len() < 3 {
            let mut room = room.clone();
            for _ in all.iter().filter(|it: &&Delivery| it.url.contains("slow")) {
                room.take("https://slow.example");
            }
            all.extend(take_now::<S>(&outbox, room).await?);
            sleep(POLL_INTERVAL).await;
        }
        Ok(all)
    };
    let taken: CheckResult<Vec<Delivery>> = within("deliveries to both receivers", taking).await?;
    let taken = taken?;
    let slow = taken
        .iter()
        .filter(|delivery| delivery.url.contains("slow"));
    ensure_eq("deliveries to the full receiver", slow.count(), 2)?;
    ensure_eq("leased deliveries", taken.len(), 3)
}

pub(super) async fn deliveries_are_listed_by_state<S: Store>(store: S) -> CheckResult {
    let outbox = outbox(&store)?;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(end_for(&store, "https://receiver.example/").await?);
        sleep(Duration::from_millis(2)).await;
    }
    let taken = take::<S>(&outbox, 5, LONG_LEASE).await?;
    let first = taken.iter().find(|delivery| delivery.id.job() == ids[0]);
    let first = first.ok_or_else(|| Violation::new("expected the first delivery"))?;
    settle::<S>(&outbox, first, Settlement::Failed(failed(410))).await?;
    let has_failed = |delivery: &Delivery| delivery.state == DeliveryState::Failed;
    until_one::<S>(&outbox, ids[0], "a delivery to fail", has_failed).await?;

    let mut filter = DeliveryFilter::new().limit(2);
    let mut listed = Vec::new();
    loop {
        let page = within("a list of deliveries", outbox.list(&filter)).await??;
        ensure(page.deliveries.len() <= 2, "a page to have its limit")?;
        listed.extend(page.deliveries.iter().map(|delivery| delivery.id.job()));
        match page.next {
            Some(next) => filter = filter.after(next),
            None => break,
        }
    }
    ids.reverse();
    ensure_eq("jobs of the listed deliveries", &listed, &ids)?;
    let failures = within("a list", outbox.list(&DeliveryFilter::new().failed())).await??;
    ensure_eq("failed deliveries", failures.deliveries.len(), 1)?;
    ensure_eq(
        "reason",
        failures.deliveries[0]
            .last
            .clone()
            .and_then(|last| last.status),
        Some(410),
    )?;
    let pending = within("a list", outbox.list(&DeliveryFilter::new().pending())).await??;
    ensure_eq("pending deliveries", pending.deliveries.len(), 4)?;
    let stats = within("a count", outbox.stats()).await??;
    ensure_eq("pending deliveries", stats.pending, 4)?;
    ensure(stats.oldest.is_some(), "the oldest pending delivery")
}

pub(super) async fn new_delivery_wakes_its_sender<S: Store>(store: S) -> CheckResult {
    let outbox = outbox(&store)?;
    let before = take_now::<S>(&outbox, room(LONG_LEASE)).await?;
    ensure(before.is_empty(), "no delivery of a new store")?;
    let sending = async {
        loop {
            outbox.added().await;
            let taken = take_now::<S>(&outbox, room(LONG_LEASE)).await?;
            if !taken.is_empty() {
                return Ok(taken.len());
            }
        }
    };
    let ending = async {
        sleep(POLL_INTERVAL).await;
        end_for(&store, "https://receiver.example/").await
    };
    let (sent, ended): (CheckResult<usize>, _) = within("a delivery to wake its sender", async {
        tokio::join!(sending, ending)
    })
    .await?;
    ended?;
    ensure_eq("leased deliveries", sent?, 1)
}
