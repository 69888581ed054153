//! Checks that a store keeps the promises of its trait, for authors of stores.
//!
//! The checks call a [`Store`] as the layer does, without HTTP. They need no test harness: a check
//! that fails panics, and the message names the check, the expectation and what happened instead.
//!
//! ```
//! use std::time::Duration;
//!
//! use tower_accepted::store::{Budget, MemoryStore, conformance};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let retain = Duration::from_secs(120);
//! // In the tests of your store, with its own constructor.
//! conformance::run(async || MemoryStore::new(retain, Budget::new(1 << 26))).await;
//! # }
//! ```
//!
//! # The store
//!
//! Each check gets a store of its own, without jobs. The store must keep ended jobs for at least
//! two minutes, and its budget must have room for 32 MiB. Checks change the limit of that budget.
//!
//! Use [`run`] for a store whose jobs run in the process that accepted them, and [`run_queue`] for
//! a [`Queue`]. A queue should have a lease of a few seconds, because some checks wait until one
//! expires. To run each check as a test of its own, or several at a time, take them from [`checks`]
//! or [`queue_checks`].
//!
//! [`run_expiry`] has the checks of expired jobs. It needs a store that keeps ended jobs for a few
//! seconds at most.
//!
//! # Time
//!
//! The checks run on a tokio runtime with a timer, on one thread or on several. Tokio's clock may
//! be paused unless the store does I/O: a paused clock runs ahead while I/O is pending, so timeouts
//! would expire at once. A check that waits for the store fails after a minute.
//!
//! # What a store must guarantee
//!
//! - **Accepting**: a job is found once `accept` resolves, with everything that [`NewJob`] had. A
//!   dropped claim ends its job, or makes the request available to another process.
//! - **Ending**: the first end wins, whether it is the call's, a cancel or a delete. An end that
//!   comes from elsewhere completes `poll_canceled`. A cancel or delete at a revision that the job
//!   does not have changes nothing.
//! - **Results**: a response comes back byte for byte: status, all header values with their
//!   sensitivity, body and trailers. It can be read from any byte of the body, and beyond its end
//!   as an empty body. A reader waits for the response of an unfinished job.
//! - **Unfinished responses**: a store may publish a response while it is written. All its readers
//!   get the whole. If it breaks off, they get what was flushed and then an error, even after the
//!   job has ended. No reader gets bytes of two calls.
//! - **Changes**: a stream of revisions begins with the current one, never goes back, and ends with
//!   the job.
//! - **Keys**: two requests with one key become one job, even after its end or a cancel. A delete,
//!   and an end with [`KeyOutcome::Release`], free the key. Any other key outlives its job. It is
//!   remembered for [`NewKey::keep_for`] from the job's end, or for a time that the store chooses.
//! - **Lists**: each job is on exactly one page, the newest first.
//! - **Memory**: every charge is released in the end. A response without room is refused.
//! - **Queues**: a request comes back as it was, and runs under one claim at a time. A dropped
//!   ticket, a dropped claim and a shutdown deliver it again.
//!
//! [`KeyOutcome::Release`]: super::KeyOutcome::Release
//! [`NewJob`]: super::NewJob
//! [`NewKey::keep_for`]: super::NewKey::keep_for

mod accepting;
mod ending;
mod expiry;
mod fixtures;
mod following;
mod in_process;
mod keys;
mod lists;
mod memory;
mod outbox;
mod queue;
mod results;
mod violation;
mod writing;

use std::{fmt, future::Future, pin::Pin};

use self::violation::CheckResult;
use super::{interface::Store, queue::Queue};

type CheckFuture = Pin<Box<dyn Future<Output = CheckResult> + Send>>;

/// One check of a store.
pub struct Check<S> {
    name: &'static str,
    run: fn(S) -> CheckFuture,
}

impl<S> Check<S> {
    /// Returns the name of the check.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the check on a new store.
    ///
    /// # Panics
    ///
    /// Panics if the store fails the check.
    pub async fn run(&self, store: S) {
        if let Err(violation) = (self.run)(store).await {
            panic!("store check `{}` failed: {violation}", self.name);
        }
    }
}

impl<S> fmt::Debug for Check<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Check").field(&self.name).finish()
    }
}

/// Runs all checks of a store whose jobs run in the process that accepted them.
///
/// `make` is called for each check, and returns a new store.
///
/// # Panics
///
/// Panics if the store fails a check.
pub async fn run<S: Store>(make: impl AsyncFn() -> S) {
    for check in checks() {
        check.run(make().await).await;
    }
}

/// Runs all checks of a queue.
///
/// `make` is called for each check, and returns a new store.
///
/// # Panics
///
/// Panics if the store fails a check.
pub async fn run_queue<S: Queue>(make: impl AsyncFn() -> S) {
    for check in queue_checks() {
        check.run(make().await).await;
    }
}

/// Runs the checks of expired jobs and keys.
///
/// `make` is called for each check, and returns a new store that keeps ended jobs for a few seconds
/// at most, and their keys for at least a minute.
///
/// # Panics
///
/// Panics if the store fails a check.
pub async fn run_expiry<S: Store>(make: impl AsyncFn() -> S) {
    for check in expiry_checks() {
        check.run(make().await).await;
    }
}

/// Lists checks by the functions that implement them.
macro_rules! list {
    ($($file:ident::$name:ident),+ $(,)?) => {
        [$(Check {
            name: stringify!($name),
            run: |store| Box::pin($file::$name(store)),
        }),+]
    };
}

/// Returns the checks of a store whose jobs run in the process that accepted them.
pub fn checks<S: Store>() -> Vec<Check<S>> {
    let mut checks = common_checks();
    checks.extend(list![
        in_process::every_job_runs_here,
        in_process::dropped_claim_ends_the_job,
        in_process::dropped_accept_leaves_no_unfinished_job,
    ]);
    checks
}

/// Returns the checks of a queue.
pub fn queue_checks<S: Queue>() -> Vec<Check<S>> {
    let mut checks = common_checks();
    checks.extend(list![
        queue::request_comes_back_as_it_was,
        queue::large_request_comes_back_as_it_was,
        queue::claimed_request_ends_its_job,
        queue::request_runs_under_one_claim,
        queue::job_that_runs_here_is_not_delivered,
        queue::canceled_request_is_not_run,
        queue::dropped_ticket_is_delivered_again,
        queue::dropped_claim_is_delivered_again,
        queue::work_has_the_receivers_of_its_job,
        queue::unstarted_call_is_handed_back,
        queue::started_call_is_handed_back,
        queue::second_call_continues_no_response,
    ]);
    checks
}

/// Returns the checks of expired jobs and keys.
pub fn expiry_checks<S: Store>() -> Vec<Check<S>> {
    Vec::from(list![
        expiry::key_outlives_its_job,
        expiry::key_expires_after_its_time,
    ])
}

/// Returns the checks of an [`Outbox`](super::Outbox).
pub fn outbox_checks<S: Store>() -> Vec<Check<S>> {
    Vec::from(list![
        outbox::end_records_its_deliveries,
        outbox::every_end_records_a_delivery,
        outbox::second_end_records_no_delivery,
        outbox::delivery_outlives_its_job,
        outbox::leased_delivery_is_not_taken,
        outbox::ended_lease_is_taken_again,
        outbox::delivered_is_not_taken,
        outbox::failed_attempt_is_retried_later,
        outbox::failed_delivery_can_be_redelivered,
        outbox::full_receiver_holds_up_no_other,
        outbox::deliveries_are_listed_by_state,
        outbox::new_delivery_wakes_its_sender,
    ])
}

fn common_checks<S: Store>() -> Vec<Check<S>> {
    Vec::from(list![
        accepting::accepted_job_is_found_at_once,
        accepting::snapshot_has_what_the_job_had,
        accepting::job_that_runs_already_is_running,
        accepting::unknown_job_is_unknown,
        ending::first_end_wins,
        ending::one_of_two_concurrent_ends_wins,
        ending::end_has_what_the_call_reported,
        ending::end_without_a_response_has_its_reason,
        ending::canceled_job_notifies_its_call,
        ending::deleted_job_is_unknown,
        ending::cancel_needs_its_revision,
        ending::one_of_two_conditional_cancels_wins,
        following::follower_sees_the_job_to_its_end,
        following::follower_sees_reports,
        following::report_replaces_the_title,
        following::ended_job_has_one_last_revision,
        following::late_report_changes_nothing,
        keys::repeated_key_joins_the_job,
        keys::key_of_a_canceled_job_joins_it,
        keys::key_of_another_request_is_refused,
        keys::concurrent_requests_of_a_key_are_one_job,
        keys::join_only_request_becomes_no_job,
        keys::key_of_a_deleted_job_is_free,
        keys::released_key_is_free,
        lists::jobs_are_listed_by_owner_and_status,
        lists::pages_list_each_job_once,
        memory::reserved_bytes_are_released,
        memory::response_without_room_is_refused,
        memory::deleted_job_releases_its_bytes,
        results::empty_result_comes_back,
        results::small_result_comes_back,
        results::large_result_comes_back,
        results::result_in_many_chunks_comes_back,
        results::result_is_read_from_any_byte,
        results::job_without_a_response_has_no_result,
        writing::reader_waits_for_the_response,
        writing::waiting_reader_learns_of_a_cancel,
        writing::reader_gets_the_whole_response,
        writing::broken_response_is_kept,
        writing::canceled_response_is_kept,
        writing::declared_length_is_known,
        writing::many_readers_get_the_whole_response,
    ])
}
