//! What an application sets for webhooks.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderName, request::Parts};
use rustls::pki_types::CertificateDer;

use super::{
    client::ClientOptions, host_rule::AllowedHosts, secret::Secret, target::Target,
    target_url::TargetUrl,
};
use crate::protocol::callback_preference;

/// OpenFaaS's field for the URL of a callback.
const X_CALLBACK_URL: HeaderName = HeaderName::from_static("x-callback-url");

/// The delays between attempts that the specification proposes: 75 hours in all.
const DELAYS: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(10 * 3600),
    Duration::from_secs(14 * 3600),
    Duration::from_secs(20 * 3600),
    Duration::from_secs(24 * 3600),
];

/// Notifies receivers of jobs by signed requests, in the format of [Standard Webhooks].
///
/// The server POSTs an event when a job ends, so that a client need not poll. A store records each
/// delivery in the step that ends the job. It is sent at least once, until the receiver has taken
/// it or the last attempt has failed.
///
/// The [guide](crate::guide::webhooks) shows what is sent, and how to receive it.
///
/// ```
/// use tower_accepted::{
///     Jobs,
///     webhook::{Secret, Target, Webhooks},
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?; // from the environment
/// let webhooks = Webhooks::new()
///     .secret(secret)
///     .targets(|_head| vec![Target::new("https://hooks.example.com/jobs")]);
/// let jobs = Jobs::builder().webhooks(webhooks).try_build()?;
/// # let _ = jobs;
/// # Ok(())
/// # }
/// ```
///
/// # Who names the receiver
///
/// - [`targets`](Self::targets): the application, for each request.
/// - [`prefer_callback`](Self::prefer_callback): the client, by the preference `callback`.
/// - [`callback_field`](Self::callback_field): the client, by the field `X-Callback-Url`.
///
/// A client can only name hosts that a rule allows: otherwise anybody could make the server send
/// requests anywhere.
///
/// # Addresses
///
/// The server sends nothing to loopback, private, link-local and other special addresses, whatever
/// name or spelling leads there, unless [`allow_internal`](Self::allow_internal) names the host. It
/// checks the address that it connects to. It uses no proxy and follows no redirect.
///
/// [Standard Webhooks]: https://www.standardwebhooks.com
#[derive(Clone)]
#[must_use = "webhooks are sent once a builder has them"]
pub struct Webhooks {
    pub(crate) secrets: Vec<Secret>,
    targets: Option<Arc<TargetsFn>>,
    preference: AllowedHosts,
    field: AllowedHosts,
    pub(crate) client: ClientOptions,
    pub(crate) delays: Vec<Duration>,
    pub(crate) max_connections: usize,
    pub(crate) max_per_receiver: usize,
    pub(crate) max_rate: u32,
}

type TargetsFn = dyn Fn(&Parts) -> Vec<Target> + Send + Sync;

/// The receivers of one request.
#[derive(Debug, Default)]
pub(crate) struct SelectedTargets {
    pub(crate) targets: Vec<Target>,
    /// The preference that was honored, if the response is a 202.
    pub(crate) applied: Option<&'static str>,
}

/// The client names a receiver that no rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ForbiddenCallback;

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            secrets: Vec::new(),
            targets: None,
            preference: AllowedHosts::default(),
            field: AllowedHosts::default(),
            client: ClientOptions::default(),
            delays: DELAYS.to_vec(),
            max_connections: 256,
            max_per_receiver: 8,
            max_rate: 50,
        }
    }
}

impl Webhooks {
    /// Creates webhooks without a secret and without receivers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a secret that signs each request. At least one is needed.
    ///
    /// While one is replaced, add the new one and the old one: receivers then accept either.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Names the receivers of a request.
    ///
    /// The closure is called for each request that may become a job. A target whose URL is invalid
    /// or forbidden is left out, with a warning in the log.
    pub fn targets<F>(mut self, targets: F) -> Self
    where
        F: Fn(&Parts) -> Vec<Target> + Send + Sync + 'static,
    {
        self.targets = Some(Arc::new(targets));
        self
    }

    /// Lets clients name a receiver by `Prefer: respond-async, callback; url="…"` (OData 4.01
    /// §8.2.8.2), on these hosts.
    ///
    /// `Preference-Applied` of the 202 confirms it. Any other host is ignored, as an unknown
    /// preference is. With [`Dialect::Pending202`](crate::Dialect::Pending202) the receiver gets a
    /// GET without content and signature, as OData has it, otherwise a signed POST.
    pub fn prefer_callback(mut self, hosts: AllowedHosts) -> Self {
        self.preference = hosts;
        self
    }

    /// Lets clients name a receiver by the field `X-Callback-Url`, on these hosts. Any other URL
    /// gets 400.
    pub fn callback_field(mut self, hosts: AllowedHosts) -> Self {
        self.field = hosts;
        self
    }

    /// Allows receivers on these hosts to have internal addresses, such as those of a private
    /// network. They still need `https`.
    pub fn allow_internal(mut self, hosts: AllowedHosts) -> Self {
        self.client.policy.internal = hosts;
        self
    }

    /// Allows all addresses, and `http`. For development on one machine only.
    pub fn insecure_for_development(mut self) -> Self {
        self.client.policy.is_insecure = true;
        self
    }

    /// Trusts a root certificate (X.509, in DER) besides those of the system.
    pub fn root_certificate(mut self, der: impl Into<Vec<u8>>) -> Self {
        let certificate = CertificateDer::from(der.into());
        self.client.root_certificates.push(certificate);
        self
    }

    /// Sets the time limit of one attempt, from the look-up of the name to the end of the response.
    /// Default: 15 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.client.timeout = timeout;
        self
    }

    /// Sets the delays between the attempts of a delivery. Default: 5 s, 5 and 30 minutes, 2, 5,
    /// 10, 14, 20 and 24 hours, which is 75 hours in all.
    ///
    /// Each is varied by up to a tenth. Without delays, there is one attempt.
    pub fn retry_delays(mut self, delays: impl IntoIterator<Item = Duration>) -> Self {
        self.delays = delays.into_iter().collect();
        self
    }

    /// Sets the maximum number of concurrent requests. Default: 256.
    ///
    /// Half of them are for receivers that responded to their last request. So receivers that do
    /// not respond cannot hold up those that do. A quarter as many idle connections are kept.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(2);
        self.client.max_idle_connections = self.max_connections.div_ceil(4);
        self
    }

    /// Sets the maximum number of concurrent requests to one receiver: a scheme, host and port.
    /// Default: 8.
    pub fn max_connections_per_receiver(mut self, connections: usize) -> Self {
        self.max_per_receiver = connections.max(1);
        self
    }

    /// Sets the maximum number of requests to one receiver in a second. Default: 50.
    pub fn max_rate_per_receiver(mut self, per_second: u32) -> Self {
        self.max_rate = per_second.max(1);
        self
    }

    /// Returns the receivers of a request. `by_get` is set if preferred callbacks are a GET.
    pub(crate) fn select(
        &self,
        head: &Parts,
        by_get: bool,
    ) -> Result<SelectedTargets, ForbiddenCallback> {
        let mut selected = SelectedTargets::default();
        if let Some(targets) = &self.targets {
            for mut target in targets(head) {
                match TargetUrl::parse(&target.url, &self.client.policy) {
                    Ok(url) => {
                        target.url = url.uri().to_string();
                        selected.targets.push(target);
                    }
                    Err(error) => tracing::warn!(%error, "left out the receiver of a webhook"),
                }
            }
        }
        if !self.field.is_empty()
            && let Some(url) = self.named_by_field(head)?
        {
            selected.targets.push(Target::new(url));
        }
        if !self.preference.is_empty()
            && let Some((preference, url)) = callback_preference(&head.headers)
            && let Some(url) = self.allowed(&url, &self.preference)
        {
            let target = Target::new(url);
            let target = if by_get { target.by_get() } else { target };
            selected.targets.push(target);
            selected.applied = Some(preference);
        }
        Ok(selected)
    }

    fn named_by_field(&self, head: &Parts) -> Result<Option<String>, ForbiddenCallback> {
        let mut values = head.headers.get_all(X_CALLBACK_URL).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(ForbiddenCallback);
        }
        let url = value.to_str().map_err(|_| ForbiddenCallback)?;
        let url = self.allowed(url, &self.field);
        url.map(Some).ok_or(ForbiddenCallback)
    }

    /// Returns a URL as it is requested, if a rule allows it.
    fn allowed(&self, url: &str, hosts: &AllowedHosts) -> Option<String> {
        let url = TargetUrl::parse(url, &self.client.policy).ok()?;
        hosts.matches(&url).then(|| url.uri().to_string())
    }
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks")
            .field("secrets", &self.secrets)
            .field("prefer_callback", &self.preference)
            .field("callback_field", &self.field)
            .field("retry_delays", &self.delays)
            .finish_non_exhaustive()
    }
}
