//! The command line of the gateway.

use std::time::Duration;

use clap::Parser;
use http::{HeaderName, HeaderValue, uri::Authority};
use tower_accepted::{
    AcceptedLayer, Idempotency, Jobs, JobsBuilder, Links, Owner, When, store::Store,
};

#[cfg(feature = "webhook")]
use crate::callbacks::CallbackFlags;
#[cfg(feature = "sqlite")]
use crate::command::Command;
use crate::{
    choices::{DialectName, KeptOutcomes, LinkForm},
    cors::Cors,
    descriptors::DescriptorShares,
    forwarded::ForwardedTrust,
    notes::NOTES,
    parse,
    proxy::ProxyOptions,
    serve::GatewayOptions,
    storage::StorageFlags,
};

const MODE: &str = "When to answer 202";
const JOBS: &str = "Jobs";
const MONITOR: &str = "Status monitor";

/// hyper's own limit. With another one, it allocates for each head.
const DEFAULT_MAX_FIELDS: u16 = 100;

/// Puts 202 (Accepted) in front of any HTTP server, without changing it.
///
/// A slow POST, PUT, PATCH or DELETE is answered 202 with the address of a status monitor, and the
/// call continues in the background. The monitor serves the server's own response once it is
/// complete. All other requests and responses stream through.
#[derive(Debug, Parser)]
#[command(
    name = "accepted-gateway",
    version,
    after_long_help = NOTES,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    verbatim_doc_comment
)]
pub(crate) struct Cli {
    /// The server behind the gateway, as http://HOST[:PORT]
    ///
    /// Without this flag the gateway starts a slow demo server and prints commands to try.
    #[arg(long, value_name = "URL", value_parser = parse::upstream)]
    pub(crate) upstream: Option<Authority>,

    /// The address to listen on; port 0 picks a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: String,

    /// Serve /healthz and /readyz under this path; / serves them at the root
    ///
    /// /healthz answers 200 while the process serves. /readyz answers 200, and 503 as soon as a
    /// shutdown begins. They hide the server's own resources at these paths.
    #[arg(
        long,
        value_name = "PATH-PREFIX",
        value_parser = parse::path_prefix,
        verbatim_doc_comment
    )]
    pub(crate) health: Option<String>,

    /// The address to serve metrics for Prometheus on, at /metrics
    ///
    /// Keep it private: the metrics name the kinds of requests that clients send.
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<String>,

    /// Believe X-Forwarded-* and Forwarded, and add this hop to them
    ///
    /// Set it only if every request comes through a proxy that writes them. Without it, the gateway
    /// replaces X-Forwarded-Host and -Proto, removes Forwarded, and only adds to X-Forwarded-For.
    #[arg(long, verbatim_doc_comment)]
    trust_forwarded: bool,

    /// Let pages of this origin read what the gateway answers, and cancel jobs; repeatable
    ///
    /// A page of a listed origin may send the user's cookies. * allows every origin, without
    /// cookies. The gateway answers preflights (CORS) for the monitor. The server still answers
    /// those for its own paths, and decides which of its own responses pages may read.
    #[arg(
        long,
        value_name = "ORIGIN",
        value_parser = parse::cors_origin,
        verbatim_doc_comment
    )]
    cors_origin: Vec<HeaderValue>,

    /// The seconds to wait for the next request on a connection
    ///
    /// It also limits the time for a request's whole head, and for a client that stops reading, or
    /// stops sending a request's body. Set it higher than the idle timeout of a load balancer in
    /// front of the gateway, which would otherwise send requests on connections that the gateway is
    /// closing.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 75,
        value_parser = clap::value_parser!(u64).range(1..=86_400),
        verbatim_doc_comment
    )]
    idle_secs: u64,

    /// The maximum number of fields in the head of a request (else 431) or a response (else 502)
    #[arg(
        long,
        value_name = "N",
        default_value_t = DEFAULT_MAX_FIELDS,
        value_parser = clap::value_parser!(u16).range(1..=20_000)
    )]
    max_fields: u16,

    /// The seconds that jobs and open responses may take after SIGTERM or Ctrl-C
    ///
    /// The process may take two seconds more, to stop calls and to send what is ready. Give an
    /// orchestrator a longer grace period than that. A request whose body stalls for a second ends.
    #[arg(long, value_name = "N", default_value_t = 30, verbatim_doc_comment)]
    drain_secs: u64,

    /// Answer 202 if the server takes longer than N milliseconds
    ///
    /// This is the default mode and suits any server: fast responses and early errors pass
    /// through unchanged. A slow call moves to the background. It never starts twice.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 300,
        conflicts_with_all = ["always", "preferred", "streamed"],
        help_heading = MODE,
        verbatim_doc_comment
    )]
    after_ms: u64,

    /// Answer 202 at once, before the server responds
    #[arg(long, conflicts_with_all = ["preferred", "streamed"], help_heading = MODE)]
    always: bool,

    /// Answer 202 only if the client sends `Prefer: respond-async`
    #[arg(long, conflicts_with = "streamed", help_heading = MODE)]
    preferred: bool,

    /// Send each response as the server produces it, and keep it for a client that is cut off
    ///
    /// The response has a Link to the monitor. A client that is cut off reads on there, at
    /// /stream?offset=N, or repeats its request with the same Idempotency-Key. The call goes on
    /// without it. `Prefer: respond-async` is answered 202.
    #[arg(long, help_heading = MODE, verbatim_doc_comment)]
    streamed: bool,

    /// Reject a request without an Idempotency-Key if it could become a job
    #[arg(long, help_heading = MODE)]
    pub(crate) require_key: bool,

    /// The outcomes that an Idempotency-Key keeps; after others, a repeat calls the server again
    ///
    /// A call that never reached the server always frees its key.
    #[arg(
        long,
        value_enum,
        value_name = "OUTCOMES",
        default_value = "all",
        help_heading = MODE
    )]
    key_keeps: KeptOutcomes,

    /// The maximum number of unfinished jobs
    ///
    /// At the maximum, a new request is forwarded as an ordinary call. With --always, an
    /// Idempotency-Key or --shed-when-full it is answered 503.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        value_parser = parse::positive,
        help_heading = JOBS,
        verbatim_doc_comment
    )]
    max_unfinished: usize,

    /// Answer 503 to any request that could become a job if there are --max-unfinished jobs
    ///
    /// During a shutdown, such requests get 503 too.
    #[arg(long, help_heading = JOBS)]
    shed_when_full: bool,

    /// The maximum number of calls to the server that are or may become jobs; others are queued
    ///
    /// Default: the share of file descriptors, which also caps a higher number.
    /// Other requests hold none of these calls: GETs, and those whose body is not read to its end,
    /// such as one over --max-body. A call that could have become a job holds one to its end.
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = JOBS,
        verbatim_doc_comment
    )]
    max_calls: Option<u32>,

    /// The largest request body that a job takes; a request with a larger one passes through
    ///
    /// With --always or an Idempotency-Key it is answered 413.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 2 << 20,
        value_parser = parse::positive,
        help_heading = JOBS
    )]
    max_body: usize,

    /// The largest response body that a job keeps; a larger one fails the job
    ///
    /// Bodies, jobs and results share 256 MiB of memory, or 16 times the larger of --max-result and
    /// --max-body if that is more. Up to a million idempotency keys of 160 bytes come on top.
    #[cfg_attr(
        feature = "sqlite",
        doc = " With --store, results and keys are on the disk: only --max-body raises the memory."
    )]
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 16 << 20,
        help_heading = JOBS,
        verbatim_doc_comment
    )]
    max_result: usize,

    /// The seconds that a job may take; 0 means no limit
    #[arg(long, value_name = "N", default_value_t = 3600, help_heading = JOBS)]
    job_timeout_secs: u64,

    /// The seconds to keep a job and its result after its end
    #[arg(long, value_name = "N", default_value_t = 3600, help_heading = JOBS)]
    retain_secs: u64,

    /// Bind each job to the value of this request header, as a trusted proxy sets it
    ///
    /// Requests with another value get 404. An empty value is none. A request with two of these
    /// headers gets 400. A client that bypasses the proxy can send any value.
    #[arg(
        long,
        value_name = "NAME",
        value_parser = parse::owner_header,
        help_heading = JOBS,
        verbatim_doc_comment
    )]
    owner_header: Option<HeaderName>,

    /// Keep Set-Cookie and Clear-Site-Data in results
    ///
    /// Every client that opens a link to a result then receives its cookies, and with them the
    /// session of the client that submitted the job.
    #[arg(long, help_heading = JOBS, verbatim_doc_comment)]
    replay_cookies: bool,

    /// The path of the monitor; it hides the server's own resources there
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/jobs",
        value_parser = parse::path,
        help_heading = MONITOR
    )]
    pub(crate) monitor: String,

    /// The maximum seconds that `Prefer: wait` delays a response
    ///
    /// A proxy in front of the gateway may give up earlier: many do after 60 seconds.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        help_heading = MONITOR,
        verbatim_doc_comment
    )]
    max_wait_secs: u64,

    /// The responses of the monitor, for different clients
    #[arg(
        long,
        value_enum,
        value_name = "NAME",
        default_value = "default",
        help_heading = MONITOR
    )]
    dialect: DialectName,

    /// The form of links to the monitor
    #[arg(
        long,
        value_enum,
        value_name = "FORM",
        default_value = "path",
        conflicts_with = "public_base",
        help_heading = MONITOR
    )]
    links: LinkForm,

    /// Write links as absolute URLs under this one, which every client understands
    #[arg(long, value_name = "URL", value_parser = parse::public_base, help_heading = MONITOR)]
    public_base: Option<String>,

    #[command(flatten)]
    pub(crate) storage: StorageFlags,

    #[cfg(feature = "webhook")]
    #[command(flatten)]
    pub(crate) callbacks: CallbackFlags,

    #[cfg(feature = "sqlite")]
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

impl Cli {
    /// Returns the configured builder of the registry, without a store and callbacks.
    pub(crate) fn jobs(&self) -> JobsBuilder {
        let timeout = Some(self.job_timeout_secs).filter(|&seconds| seconds > 0);
        let mut builder = Jobs::builder();
        if let Some(name) = self.owner_header.clone() {
            builder = builder.owner(move |head| {
                let owner = head.headers.get(&name).filter(|owner| !owner.is_empty());
                owner.map(Owner::new)
            });
        }
        if let Some(cors) = Cors::new(&self.cors_origin) {
            builder = builder.allow_cancel_from(move |origin| cors.allows(origin));
        }
        builder
            .dialect(self.dialect.into())
            .links(match (&self.public_base, self.links) {
                (Some(base), _) => Links::Base(base.clone()),
                (None, LinkForm::Path) => Links::Path,
                (None, LinkForm::Relative) => Links::Relative,
            })
            .monitor_path(&self.monitor)
            .max_unfinished(self.max_unfinished)
            .shed_when_full(self.shed_when_full)
            .max_body(self.max_body)
            .max_wait(Duration::from_secs(self.max_wait_secs))
            .max_result(self.max_result)
            .max_bytes(self.max_bytes())
            .job_timeout(timeout.map(Duration::from_secs))
            .replay_cookies(self.replay_cookies)
    }

    /// Returns the settings of the proxy in front of `upstream`.
    pub(crate) fn proxy(&self, upstream: Authority) -> ProxyOptions {
        ProxyOptions {
            upstream,
            max_fields: self.max_fields(),
            forwarded: if self.trust_forwarded {
                ForwardedTrust::Extend
            } else {
                ForwardedTrust::Replace
            },
            owner: self.owner_header.clone(),
        }
    }

    /// Returns the settings for connections and requests.
    pub(crate) fn gateway(&self, shares: DescriptorShares) -> GatewayOptions {
        GatewayOptions {
            health: self.health.clone(),
            monitor: self.monitor.clone(),
            owner: self.owner_header.clone(),
            accepts_gets: matches!(self.dialect, DialectName::Pending202),
            cors: Cors::new(&self.cors_origin),
            idle_timeout: Duration::from_secs(self.idle_secs),
            max_fields: self.max_fields(),
            max_connections: shares.connections,
            has_durable_jobs: self.storage.place().is_some(),
        }
    }

    /// Returns the maximum number of fields in a head, or `None` for hyper's default.
    fn max_fields(&self) -> Option<usize> {
        (self.max_fields != DEFAULT_MAX_FIELDS).then_some(self.max_fields.into())
    }

    /// Returns the maximum number of calls to the upstream that are or may become jobs.
    pub(crate) fn calls(&self, shares: DescriptorShares) -> usize {
        let calls = self.max_calls.and_then(|calls| calls.try_into().ok());
        calls.unwrap_or(usize::MAX).min(shares.calls)
    }

    /// Returns the number of requests that a worker runs at a time.
    #[cfg(any(feature = "nats", feature = "sqlite"))]
    pub(crate) fn concurrency(&self, shares: DescriptorShares) -> usize {
        self.calls(shares).min(self.storage.concurrency())
    }

    /// Returns the layer in front of the proxy.
    pub(crate) fn layer<St: Store>(&self, jobs: &Jobs<St>) -> AcceptedLayer<When, St> {
        let idempotency = Idempotency::new()
            .required(self.require_key)
            .keep(self.key_keeps.into());
        jobs.layer().when(self.when()).idempotency(idempotency)
    }

    /// Returns when requests become jobs.
    pub(crate) fn when(&self) -> When {
        if self.always {
            When::Always
        } else if self.preferred {
            When::Preferred
        } else if self.streamed {
            When::Streamed
        } else {
            When::After(Duration::from_millis(self.after_ms))
        }
    }

    /// Returns one line about which requests become jobs, and where these are kept.
    pub(crate) fn summary(&self) -> String {
        let outcome = match self.when() {
            When::Streamed => "is streamed as a job",
            _ => "is answered 202 and becomes a job",
        };
        let requests = match self.when() {
            When::Streamed => "Every POST, PUT, PATCH or DELETE".to_owned(),
            When::Always => "Every POST, PUT, PATCH or DELETE".to_owned(),
            When::Preferred => "A POST, PUT, PATCH or DELETE with respond-async".to_owned(),
            _ => format!(
                "A POST, PUT, PATCH or DELETE that takes over {} ms",
                self.after_ms
            ),
        };
        let place = self.storage.place();
        let place = place.map(|place| format!(" Jobs are kept in {place}."));
        format!(
            "{requests} {outcome} under {}.{}",
            self.monitor,
            place.unwrap_or_default()
        )
    }

    /// Returns the limit of a drain.
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_secs)
    }

    pub(crate) fn retain(&self) -> Duration {
        Duration::from_secs(self.retain_secs)
    }

    /// Returns the budget for bodies in memory, in bytes.
    fn max_bytes(&self) -> usize {
        const MIN_BUDGET_BYTES: usize = 256 << 20;
        let largest = if self.storage.has_body_files() {
            self.max_body
        } else {
            self.max_result.max(self.max_body)
        };
        MIN_BUDGET_BYTES.max(largest.saturating_mul(16))
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;

    #[test]
    fn large_results_in_files_take_no_more_memory() {
        let large = ["accepted-gateway", "--max-result", "17179869184"];
        let parse = |flags: &[&str]| Cli::try_parse_from([&large[..], flags].concat());
        let in_memory = parse(&[]).expect("valid").max_bytes();
        let in_files = parse(&["--store", "jobs.db"]).expect("valid").max_bytes();
        assert_eq!((in_memory, in_files), (256 << 30, 256 << 20));
    }
}
