use std::time::Duration;

use clap::{Parser, ValueEnum};
use http::{
    HeaderName, Uri,
    uri::{Authority, Scheme},
};
#[cfg(feature = "nats")]
use tower_accepted::store::nats::NatsOptions;
use tower_accepted::{Builder, Dialect, Idempotency, Jobs, Links, Owner, When};

#[cfg(feature = "nats")]
use crate::proxy::Peer;

/// Puts 202 (Accepted) in front of any HTTP server, without changing it.
///
/// A POST, PUT, PATCH or DELETE that takes longer than a moment is answered 202 with the address of
/// its status monitor, and goes on; the server's own response is there when it is done. All else
/// passes through, streaming.
#[derive(Debug, Parser)]
#[command(name = "gateway", after_long_help = NOTES)]
pub(crate) struct Options {
    /// The server to stand in front of, as http://HOST[:PORT]
    ///
    /// Without it the gateway starts a slow server of its own, and says what to try with it.
    #[arg(long, value_name = "URL", value_parser = upstream)]
    pub(crate) upstream: Option<Authority>,

    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: String,

    /// Where to listen for Prometheus, which finds the metrics at /metrics
    ///
    /// Not where strangers get at it: what kinds of requests there are is told there.
    #[cfg(feature = "metrics")]
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<String>,

    /// The path that jobs are under; it hides the server's own resources there
    #[arg(long, value_name = "PATH", default_value = "/jobs", value_parser = monitor_path)]
    pub(crate) monitor: String,

    /// Answer 202 to what the server has not answered in so many milliseconds
    ///
    /// This is the default, since it suits a server that nothing is known of: quick answers, refusals
    /// among them, stay what they are, and only who would have had to wait has to know of 202. The
    /// call is never started twice.
    #[arg(long, value_name = "N", default_value_t = 300, conflicts_with_all = ["always", "preferred"])]
    after_ms: u64,

    /// Answer 202 at once, without asking the server first
    #[arg(long, conflicts_with = "preferred")]
    always: bool,

    /// Answer 202 only to clients that ask for it with `Prefer: respond-async`
    #[arg(long)]
    preferred: bool,

    /// How many jobs may be unfinished at a time; more are answered 503, or inline where they may be
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_unfinished: usize,

    /// The largest response body that a job keeps; with a larger one it fails
    ///
    /// All bodies that are held at a time share 256 MiB, or room for 16 of these where that is more.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    max_result: usize,

    /// How long a job and its result are kept after its end, in memory
    #[arg(long, value_name = "N", default_value_t = 3600)]
    retain_secs: u64,

    /// How long a job may take; 0 for as long as it likes
    #[arg(long, value_name = "N", default_value_t = 3600)]
    job_timeout_secs: u64,

    /// How long jobs and open responses may go on after SIGTERM or Ctrl-C
    #[arg(long, value_name = "N", default_value_t = 30)]
    drain_secs: u64,

    /// Hand results out with their Set-Cookie and Clear-Site-Data
    ///
    /// Whoever opens a link to a result gets its cookies then, and with them the session of who
    /// submitted the job.
    #[arg(long)]
    replay_cookies: bool,

    /// How the monitor shows a job: for Azure's clients and one's own, for OData's and FHIR's, or for
    /// browsers and `curl -L`
    #[arg(long, value_enum, value_name = "NAME", default_value = "default")]
    dialect: DialectName,

    /// How addresses are written: from the root, or relative to the request, which holds behind a proxy
    /// that strips a prefix
    #[arg(
        long,
        value_enum,
        value_name = "FORM",
        default_value = "path",
        conflicts_with = "public_base"
    )]
    links: LinksForm,

    /// Write addresses as URLs that begin with this one, which every client understands
    #[arg(long, value_name = "URL", value_parser = public_base)]
    public_base: Option<String>,

    /// Refuse a request that may become a job and has no Idempotency-Key
    #[arg(long)]
    pub(crate) require_key: bool,

    /// Bind each job to the value of this field of its request, as a proxy outside has set it
    ///
    /// With another value the job is not there. Whoever can reach the gateway without that proxy can
    /// say what it likes.
    #[arg(long, value_name = "NAME")]
    owner_header: Option<HeaderName>,

    /// Keep jobs in NATS JetStream, at nats://HOST[:PORT][,…], where other gateways find them too
    ///
    /// Every gateway there has to be started with the same upstream and limits; one that is lost takes
    /// no accepted request with it.
    #[cfg(feature = "nats")]
    #[arg(long, value_name = "URL")]
    pub(crate) nats: Option<String>,

    /// On how many of its servers JetStream keeps them, 1 to 5
    #[cfg(feature = "nats")]
    #[arg(long, value_name = "N", default_value_t = 1, requires = "nats", value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,

    /// What this one does: take requests, run them, or both
    #[cfg(feature = "nats")]
    #[arg(
        long,
        value_enum,
        value_name = "ROLE",
        default_value = "both",
        requires = "nats"
    )]
    pub(crate) role: Role,

    /// How many accepted requests a worker runs at a time
    #[cfg(feature = "nats")]
    #[arg(long, value_name = "N", default_value_t = 64, requires = "nats")]
    pub(crate) concurrency: usize,
}

/// What a gateway does of the two things that there are to do.
#[cfg(feature = "nats")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Web,
    Worker,
    Both,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DialectName {
    Default,
    Pending202,
    SeeOther,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LinksForm {
    Path,
    Relative,
}

const NOTES: &str = "\
What the server sees: the request as it came, Host included, but for fields of the connection
(RFC 9110 §7.6.1), with Via and X-Forwarded-For, -Host and -Proto. Where to connect is said by
--upstream alone. HTTP/1.1 and no TLS on both sides. CONNECT is refused; Upgrade is dropped, so that
a WebSocket's handshake arrives as a plain GET. Request bodies over 2 MiB pass through (with
--always: 413). A server that cannot be reached is a 502.

On SIGTERM or Ctrl-C nothing new is taken, and jobs are waited for while their monitor still answers;
a second signal ends them. RUST_LOG sets what is logged: RUST_LOG=info,tower_accepted=debug tells of
each job.";

impl Options {
    /// The registry that these options describe, but for where it is.
    pub(crate) fn jobs(&self) -> Builder {
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
                (None, LinksForm::Path) => Links::Path,
                (None, LinksForm::Relative) => Links::Relative,
            })
            .monitor_path(&self.monitor)
            .max_unfinished(self.max_unfinished)
            .max_result(self.max_result)
            .max_bytes(self.max_bytes())
            .retain(self.retain())
            .job_timeout(timeout.map(Duration::from_secs))
            .replay_cookies(self.replay_cookies)
    }

    /// How much memory there is for bodies.
    pub(crate) fn max_bytes(&self) -> usize {
        const BUDGET: usize = 256 << 20;
        BUDGET.max(self.max_result.saturating_mul(16))
    }

    /// How long jobs are kept.
    pub(crate) fn retain(&self) -> Duration {
        Duration::from_secs(self.retain_secs)
    }

    /// How they are kept in JetStream.
    #[cfg(feature = "nats")]
    pub(crate) fn in_nats(&self) -> NatsOptions {
        NatsOptions::new()
            .replicas(self.replicas.into())
            .retain(self.retain())
            .max_bytes(self.max_bytes())
            .carry::<Peer>("peer")
    }

    /// Whether a key is needed.
    pub(crate) fn idempotency(&self) -> Idempotency {
        Idempotency::new().required(self.require_key)
    }

    /// Which requests become jobs.
    pub(crate) fn when(&self) -> When {
        if self.always {
            When::Always
        } else if self.preferred {
            When::Preferred
        } else {
            When::After(Duration::from_millis(self.after_ms))
        }
    }

    /// In one line, what the gateway does.
    pub(crate) fn summary(&self) -> String {
        let which = match self.when() {
            When::Always => "Any POST, PUT, PATCH or DELETE".to_owned(),
            When::Preferred => "A POST, PUT, PATCH or DELETE that asks for it".to_owned(),
            _ => format!("A POST, PUT, PATCH or DELETE of over {} ms", self.after_ms),
        };
        format!(
            "{which} is answered 202, and is a job under {}.",
            self.monitor
        )
    }

    /// How long a shutdown may take.
    pub(crate) fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_secs)
    }
}

/// Only an origin: what else a URL can have would be ignored, and that silently.
fn upstream(text: &str) -> Result<Authority, String> {
    let url: Option<Uri> = text.parse().ok();
    let parts = url.map(Uri::into_parts).unwrap_or_default();
    let refused = match (parts.scheme.as_ref().map(Scheme::as_str), parts.authority) {
        (Some("https"), _) => "TLS is not spoken here, only http://",
        (Some("http"), Some(authority)) => match parts.path_and_query {
            _ if authority.as_str().contains('@') => "a user and a password cannot be given",
            Some(path) if path != "/" => "a path cannot be given: requests keep theirs",
            _ => return Ok(authority),
        },
        _ => "expected http://HOST[:PORT]",
    };
    Err(refused.to_owned())
}

/// As [`Links::Base`] takes it.
fn public_base(text: &str) -> Result<String, String> {
    let url: Option<Uri> = text.parse().ok();
    let valid = url.is_some_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.authority().is_some()
            && url.query().is_none()
    });
    match valid {
        true => Ok(text.to_owned()),
        false => Err("expected http(s)://HOST[:PORT][/PATH]".to_owned()),
    }
}

fn monitor_path(text: &str) -> Result<String, String> {
    let valid = text.len() > 1
        && text.starts_with('/')
        && !text.ends_with('/')
        && text.parse::<Uri>().is_ok_and(|uri| uri.path() == text);
    if valid {
        Ok(text.to_owned())
    } else {
        Err("expected a path like /jobs, without a slash at its end".to_owned())
    }
}
