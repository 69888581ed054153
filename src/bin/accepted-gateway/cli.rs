//! The command line of the gateway.

use std::time::Duration;

use clap::{Parser, ValueEnum};
use http::{
    HeaderName, Uri,
    uri::{Authority, Scheme},
};
#[cfg(feature = "nats")]
use tower_accepted::store::nats::NatsOptions;
use tower_accepted::{Dialect, Idempotency, Jobs, JobsBuilder, Links, Owner, When};

#[cfg(feature = "nats")]
use crate::peer::Peer;

const MODE: &str = "When to answer 202";
const JOBS: &str = "Jobs";
const MONITOR: &str = "Status monitor";
#[cfg(feature = "nats")]
const NATS: &str = "NATS JetStream";

const NOTES: &str = "\
Forwarding:
  The server receives each request as the client sent it, including Host, without the headers of the
  connection (RFC 9110 §7.6.1), and with Via and X-Forwarded-For, -Host and -Proto. The gateway
  speaks HTTP/1.1 without TLS on both sides. It rejects CONNECT and drops Upgrade, so that a
  WebSocket handshake arrives as a plain GET. A request body over 2 MiB passes through (with
  --always: 413). If the server is unreachable, the response is 502.

Shutdown:
  After SIGTERM or Ctrl-C the gateway accepts no new requests and waits for its jobs. Their monitor
  still answers. The gateway exits when the last job has ended; results in memory are then lost. A
  second signal ends the process at once.

Logs:
  RUST_LOG sets the log levels. RUST_LOG=info,tower_accepted=debug logs each job.";

/// Puts 202 (Accepted) in front of any HTTP server, without changing it.
///
/// A slow POST, PUT, PATCH or DELETE is answered 202 with the address of a status monitor, and the
/// call continues in the background. The monitor serves the server's own response once it is
/// complete. All other requests and responses stream through.
#[derive(Debug, Parser)]
#[command(name = "accepted-gateway", version, after_long_help = NOTES, verbatim_doc_comment)]
pub(crate) struct Cli {
    /// The server behind the gateway, as http://HOST[:PORT]
    ///
    /// Without this flag the gateway starts a slow demo server and prints commands to try.
    #[arg(long, value_name = "URL", value_parser = parse_upstream)]
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
        value_parser = parse_path_prefix,
        verbatim_doc_comment
    )]
    pub(crate) health: Option<String>,

    /// The address to serve metrics for Prometheus on, at /metrics
    ///
    /// Keep it private: the metrics name the kinds of requests that clients send.
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<String>,

    /// The seconds that jobs and open responses may take after SIGTERM or Ctrl-C
    #[arg(long, value_name = "N", default_value_t = 30)]
    drain_secs: u64,

    /// Answer 202 if the server takes longer than N milliseconds
    ///
    /// This is the default mode and suits any server: fast responses and early errors pass
    /// through unchanged. A slow call moves to the background. It never starts twice.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 300,
        conflicts_with_all = ["always", "preferred"],
        help_heading = MODE,
        verbatim_doc_comment
    )]
    after_ms: u64,

    /// Answer 202 at once, before the server responds
    #[arg(long, conflicts_with = "preferred", help_heading = MODE)]
    always: bool,

    /// Answer 202 only if the client sends `Prefer: respond-async`
    #[arg(long, help_heading = MODE)]
    preferred: bool,

    /// Reject a request without an Idempotency-Key if it could become a job
    #[arg(long, help_heading = MODE)]
    pub(crate) require_key: bool,

    /// The maximum number of unfinished jobs
    ///
    /// At the maximum, a new request is forwarded as an ordinary call. With --always or an
    /// Idempotency-Key it is answered 503.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        help_heading = JOBS,
        verbatim_doc_comment
    )]
    max_unfinished: usize,

    /// The largest response body that a job keeps; a larger one fails the job
    ///
    /// All bodies in memory share 256 MiB, or 16 times this size if that is more.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, help_heading = JOBS)]
    max_result: usize,

    /// The seconds that a job may take; 0 means no limit
    #[arg(long, value_name = "N", default_value_t = 3600, help_heading = JOBS)]
    job_timeout_secs: u64,

    /// The seconds to keep a job and its result after its end
    #[arg(long, value_name = "N", default_value_t = 3600, help_heading = JOBS)]
    retain_secs: u64,

    /// Bind each job to the value of this request header, as a trusted proxy sets it
    ///
    /// Requests with another value get 404. A client that bypasses the proxy can send any value.
    #[arg(long, value_name = "NAME", help_heading = JOBS)]
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
        value_parser = parse_path,
        help_heading = MONITOR
    )]
    pub(crate) monitor: String,

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
    #[arg(long, value_name = "URL", value_parser = parse_public_base, help_heading = MONITOR)]
    public_base: Option<String>,

    /// Keep jobs in NATS JetStream at nats://HOST[:PORT][,…], shared with other gateways
    ///
    /// Start all of them with the same upstream and limits. If one crashes, the others still run
    /// the requests that it accepted.
    #[cfg(feature = "nats")]
    #[arg(long, value_name = "URL", help_heading = NATS, verbatim_doc_comment)]
    pub(crate) nats: Option<String>,

    /// The number of servers on which JetStream stores each job, 1 to 5
    #[cfg(feature = "nats")]
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        requires = "nats",
        value_parser = clap::value_parser!(u8).range(1..=5),
        help_heading = NATS
    )]
    replicas: u8,

    /// The work of this process
    #[cfg(feature = "nats")]
    #[arg(
        long,
        value_enum,
        value_name = "ROLE",
        default_value = "both",
        requires = "nats",
        help_heading = NATS
    )]
    pub(crate) role: Role,

    /// The number of accepted requests that a worker runs at a time
    #[cfg(feature = "nats")]
    #[arg(long, value_name = "N", default_value_t = 64, requires = "nats", help_heading = NATS)]
    pub(crate) concurrency: usize,
}

#[cfg(feature = "nats")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Accept requests and serve the monitor
    Web,
    /// Run accepted requests; listens only for --health and --metrics
    Worker,
    /// Do both
    Both,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DialectName {
    /// Always 200 and the status document: for Azure SDKs and your own clients
    Default,
    /// 202 until the job ends, then its result: for OData and FHIR
    Pending202,
    /// 202 until the job ends, then 303 to its result: for browsers and `curl -L`
    SeeOther,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LinkForm {
    /// Absolute paths
    Path,
    /// Relative to the request: correct behind a proxy that strips a path prefix
    Relative,
}

impl Cli {
    /// Returns the configured builder of the registry, without a store.
    pub(crate) fn jobs(&self) -> JobsBuilder {
        let timeout = Some(self.job_timeout_secs).filter(|&seconds| seconds > 0);
        let mut builder = Jobs::builder();
        if let Some(name) = self.owner_header.clone() {
            builder = builder.owner(move |head| head.headers.get(&name).map(Owner::new));
        }
        builder
            .dialect(match self.dialect {
                DialectName::Default => Dialect::Default,
                DialectName::Pending202 => Dialect::Pending202,
                DialectName::SeeOther => Dialect::SeeOther,
            })
            .links(match (&self.public_base, self.links) {
                (Some(base), _) => Links::Base(base.clone()),
                (None, LinkForm::Path) => Links::Path,
                (None, LinkForm::Relative) => Links::Relative,
            })
            .monitor_path(&self.monitor)
            .max_unfinished(self.max_unfinished)
            .max_result(self.max_result)
            .max_bytes(self.max_bytes())
            .job_timeout(timeout.map(Duration::from_secs))
            .replay_cookies(self.replay_cookies)
    }

    /// Returns the settings of the JetStream store.
    #[cfg(feature = "nats")]
    pub(crate) fn nats_options(&self) -> NatsOptions {
        NatsOptions::new()
            .replicas(self.replicas.into())
            .retain(self.retain())
            .carry::<Peer>("peer")
    }

    pub(crate) fn idempotency(&self) -> Idempotency {
        Idempotency::new().required(self.require_key)
    }

    pub(crate) fn when(&self) -> When {
        if self.always {
            When::Always
        } else if self.preferred {
            When::Preferred
        } else {
            When::After(Duration::from_millis(self.after_ms))
        }
    }

    /// Returns one line about which requests become jobs.
    pub(crate) fn summary(&self) -> String {
        let requests = match self.when() {
            When::Always => "Every POST, PUT, PATCH or DELETE".to_owned(),
            When::Preferred => "A POST, PUT, PATCH or DELETE with respond-async".to_owned(),
            _ => format!(
                "A POST, PUT, PATCH or DELETE that takes over {} ms",
                self.after_ms
            ),
        };
        format!(
            "{requests} is answered 202 and becomes a job under {}.",
            self.monitor
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
        MIN_BUDGET_BYTES.max(self.max_result.saturating_mul(16))
    }
}

/// Parses an origin. Rejects the other parts of a URL, which the gateway would silently ignore.
fn parse_upstream(text: &str) -> Result<Authority, String> {
    let url: Option<Uri> = text.parse().ok();
    let parts = url.map(Uri::into_parts).unwrap_or_default();
    let error = match (parts.scheme.as_ref().map(Scheme::as_str), parts.authority) {
        (Some("https"), _) => "TLS is not supported, only http://",
        (Some("http"), Some(authority)) => match parts.path_and_query {
            _ if authority.as_str().contains('@') => "a user and a password are not supported",
            Some(path) if path != "/" => "a path is not supported: requests keep their own",
            _ => return Ok(authority),
        },
        _ => "expected http://HOST[:PORT]",
    };
    Err(error.to_owned())
}

/// Parses a URL for [`Links::Base`].
fn parse_public_base(text: &str) -> Result<String, String> {
    let url: Option<Uri> = text.parse().ok();
    let valid = url.is_some_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.authority().is_some()
            && url.query().is_none()
    });
    if valid {
        Ok(text.to_owned())
    } else {
        Err("expected http(s)://HOST[:PORT][/PATH]".to_owned())
    }
}

fn parse_path(text: &str) -> Result<String, String> {
    let valid = text.len() > 1
        && text.starts_with('/')
        && !text.ends_with('/')
        && text.parse::<Uri>().is_ok_and(|uri| uri.path() == text);
    if valid {
        Ok(text.to_owned())
    } else {
        Err("expected a path like /jobs, without a trailing slash".to_owned())
    }
}

/// Parses a path to put in front of others, and returns the root as the empty string.
fn parse_path_prefix(text: &str) -> Result<String, String> {
    if text == "/" {
        Ok(String::new())
    } else {
        parse_path(text).map_err(|_| "expected / or a path like /internal".to_owned())
    }
}
