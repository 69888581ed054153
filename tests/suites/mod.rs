//! What every store has to do, and what a client sees whatever the store is: the same tests for each.

pub(crate) mod routes;
pub(crate) mod store;

/// Makes tests of the functions of a suite, each with what `$make` gives it; none where that is `None`.
macro_rules! suite {
    ($flavor:tt, $make:path, $suite:path, $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test $flavor]
            async fn $name() {
                if let Some(made) = $make().await {
                    use $suite as suite;
                    suite::$name(made).await;
                }
            }
        )+
    };
}
pub(crate) use suite;

/// The tests of stores.
macro_rules! store_suite {
    ($flavor:tt, $make:path) => {
        $crate::suites::suite! {
            $flavor, $make, $crate::suites::store,
            what_is_accepted_is_found_at_once,
            the_first_end_of_a_job_holds,
            a_canceled_job_tells_who_runs_it,
            a_forgotten_job_is_unknown_and_tells_who_runs_it,
            a_result_comes_back_as_it_was,
            a_large_result_comes_back_as_it_was,
            who_follows_a_job_sees_it_to_its_end,
            what_a_call_tells_is_seen,
            jobs_are_listed_by_owner_and_status_newest_first,
            all_jobs_are_listed_page_by_page,
            what_was_never_there_is_unknown,
        }
    };
}
pub(crate) use store_suite;

/// The tests of a layer and a monitor.
macro_rules! route_suite {
    ($flavor:tt, $make:path) => {
        $crate::suites::suite! {
            $flavor, $make, $crate::suites::routes,
            a_request_is_accepted_run_and_replayed,
            a_waiting_reader_is_answered_when_the_job_ends,
            events_lead_to_the_end,
            a_running_job_is_canceled,
            a_deleted_job_is_not_there_any_more,
            a_repeated_key_joins_and_another_request_is_refused,
            a_key_under_after_is_answered_inline,
            a_job_is_there_for_its_owner_alone,
            a_quick_call_is_inline_and_a_slow_one_is_handed_over,
            a_panic_an_error_and_a_refusal_are_ends,
            a_large_body_and_a_large_result_go_through,
            progress_is_shown,
            what_may_not_be_accepted_is_refused_when_draining,
        }
    };
}
pub(crate) use route_suite;
