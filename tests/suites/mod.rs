//! Tests over HTTP that are the same for every store.

pub(crate) mod routes;

/// Makes tests of the functions of the suite of routes, each with a site that `$make` creates. A
/// test is skipped if `$make` returns `None`.
macro_rules! route_suite {
    ($flavor:tt, $make:path) => {
        $crate::suites::route_suite! {
            $flavor, $make,
            accepted_request_is_run_and_replayed,
            waiting_reader_is_answered_at_the_end,
            events_lead_to_the_end,
            running_job_is_canceled,
            deleted_job_is_not_found,
            repeated_key_joins_the_job,
            keyed_request_under_after_is_answered_inline,
            job_is_visible_to_its_owner_only,
            only_slow_calls_move_to_the_background,
            panic_error_and_http_error_end_jobs,
            large_bodies_pass_through,
            progress_is_shown,
            output_is_streamed_to_any_process,
            submitter_and_joiner_get_the_output_live,
            drained_site_accepts_nothing,
        }
    };
    ($flavor:tt, $make:path, $($name:ident),+ $(,)?) => {
        $(
            #[tokio::test $flavor]
            async fn $name() {
                if let Some(site) = $make().await {
                    $crate::suites::routes::$name(site).await;
                }
            }
        )+
    };
}
pub(crate) use route_suite;
