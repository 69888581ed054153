//! The settings of webhooks.

use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderName, request::Parts};
use rustls::pki_types::CertificateDer;

use super::{
    client::ClientOptions,
    host_rule::{AllowedHosts, HostRule},
    secret::Secret,
    target::Target,
    target_url::TargetUrl,
};
use crate::protocol::{callback_preference, shown_url};

/// OpenFaaS's field for the URL of a callback.
const X_CALLBACK_URL: HeaderName = HeaderName::from_static("x-callback-url");

/// The delays between attempts that the specification proposes: 75 hours in all.
const DEFAULT_DELAYS: [Duration; 9] = [
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

/// The minimum time limit of an attempt.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum time limit of an attempt.
const MAX_TIMEOUT: Duration = Duration::from_secs(600);

/// The maximum delay between attempts.
///
/// It is half of the time that JetStream keeps a delivery: an attempt may vary or be put off.
const MAX_DELAY: Duration = Duration::from_secs(7 * 24 * 3600);

/// Notifies receivers of jobs by signed requests, in the format of [Standard Webhooks].
///
/// The server POSTs an event when a job ends, so that a client need not poll. A recorded end always
/// has its deliveries, even if the process dies. Each is sent at least once, until the receiver
/// acknowledges it with a 2xx or the last attempt has failed.
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
/// # Choosing receivers
///
/// - [`targets`](Self::targets): the application, for each request.
/// - [`prefer_callback`](Self::prefer_callback): the client, by the preference `callback`.
/// - [`x_callback_url`](Self::x_callback_url): the client, by the field `X-Callback-Url`.
///
/// A client can only name hosts that a rule allows. Otherwise any client could make the server send
/// requests to any host.
///
/// # Addresses
///
/// The server sends nothing to loopback, private, link-local and other special addresses, whatever
/// name or spelling leads there, unless [`allow_internal_hosts`](Self::allow_internal_hosts) names
/// the host. It checks the address that it connects to. It uses no proxy and follows no redirect.
///
/// [Standard Webhooks]: https://www.standardwebhooks.com
#[derive(Clone)]
#[must_use = "webhooks do nothing until they are given to `JobsBuilder::webhooks`"]
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
            delays: DEFAULT_DELAYS.to_vec(),
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

    /// Adds a secret that signs each request. Without a secret, `try_build` returns
    /// [`ConfigError::NoWebhookSecret`](crate::ConfigError::NoWebhookSecret).
    ///
    /// While one is replaced, add the new one and the old one: receivers then accept either. All
    /// secrets sign all requests, and a receiver rejects more than 16 signatures. So use shared
    /// secrets for a few receivers, and a key pair for many.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Names the receivers of a request.
    ///
    /// The closure is called for each request that may become a job. A target whose URL is invalid
    /// or forbidden is left out, with a warning in the log.
    ///
    /// ```
    /// use tower_accepted::webhook::{EventType, Target, Webhooks};
    ///
    /// let webhooks = Webhooks::new().targets(|head| match head.uri.path() {
    ///     "/payments" => {
    ///         let events = [EventType::JobFailed];
    ///         vec![Target::new("https://alerts.example/jobs").events(events)]
    ///     }
    ///     _ => Vec::new(),
    /// });
    /// # let _ = webhooks;
    /// ```
    pub fn targets<F>(mut self, targets: F) -> Self
    where
        F: Fn(&Parts) -> Vec<Target> + Send + Sync + 'static,
    {
        self.targets = Some(Arc::new(targets));
        self
    }

    /// Lets clients name a receiver by `Prefer: respond-async, callback; url="…"` (OData 4.01
    /// §8.2.8.2), on these hosts. A further call replaces them.
    ///
    /// ```
    /// use tower_accepted::webhook::Webhooks;
    ///
    /// let webhooks = Webhooks::new().prefer_callback(["*.customers.example".parse()?]);
    /// # drop(webhooks);
    /// # Ok::<(), tower_accepted::webhook::ParseHostRuleError>(())
    /// ```
    ///
    /// `Preference-Applied` of the 202 confirms it. Any other host is ignored, as an unknown
    /// preference is. With [`Dialect::Pending202`](crate::Dialect::Pending202) the receiver gets a
    /// GET without content and signature, as OData has it, otherwise a signed POST.
    pub fn prefer_callback(mut self, hosts: impl IntoIterator<Item = HostRule>) -> Self {
        self.preference = hosts.into_iter().collect();
        self
    }

    /// Lets clients name a receiver by the field `X-Callback-Url`, on these hosts. Any other URL
    /// gets 400.
    pub fn x_callback_url(mut self, hosts: impl IntoIterator<Item = HostRule>) -> Self {
        self.field = hosts.into_iter().collect();
        self
    }

    /// Allows receivers on these hosts to have internal addresses, such as those of a private
    /// network. They still need `https`.
    ///
    /// ```
    /// use tower_accepted::webhook::Webhooks;
    ///
    /// let webhooks = Webhooks::new()
    ///     .x_callback_url(["*.corp.example".parse()?])
    ///     .allow_internal_hosts(["*.corp.example".parse()?]);
    /// # drop(webhooks);
    /// # Ok::<(), tower_accepted::webhook::ParseHostRuleError>(())
    /// ```
    pub fn allow_internal_hosts(mut self, hosts: impl IntoIterator<Item = HostRule>) -> Self {
        self.client.policy.internal = hosts.into_iter().collect();
        self
    }

    /// Allows all addresses, and `http`. For development on one machine only. Rules on hosts still
    /// apply.
    pub fn insecure_for_development(mut self) -> Self {
        self.client.policy.is_insecure = true;
        self
    }

    /// Trusts a root certificate (X.509, in DER) besides those of the system. An invalid
    /// certificate is an error of `try_build`.
    pub fn root_certificate(mut self, der: impl Into<Vec<u8>>) -> Self {
        let certificate = CertificateDer::from(der.into());
        self.client.root_certificates.push(certificate);
        self
    }

    /// Sets the time limit of one attempt, from the look-up of the name to the end of the response.
    /// Default: 15 s. A shorter time than a second counts as a second, and a longer one than ten
    /// minutes as ten minutes.
    ///
    /// With a durable store, the deliveries that a process was sending when it died are sent again
    /// after four times this limit, at least a minute.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.client.timeout = timeout.clamp(MIN_TIMEOUT, MAX_TIMEOUT);
        self
    }

    /// Sets the delays between the attempts of a delivery. Default: 5 s, 5 and 30 minutes, 2, 5,
    /// 10, 14, 20 and 24 hours, which is 75 hours in all.
    ///
    /// A longer delay than 7 days counts as 7 days. Each delay varies by up to a tenth. Without
    /// delays, there is one attempt.
    pub fn retry_delays(mut self, delays: impl IntoIterator<Item = Duration>) -> Self {
        let delays = delays.into_iter().map(|delay| delay.min(MAX_DELAY));
        self.delays = delays.collect();
        self
    }

    /// Sets the maximum number of concurrent requests, at least 2. Default: 256.
    ///
    /// Receivers that are new, or responded slowly, may take half of them. Those that did not
    /// respond to their last request may take a quarter. The client also keeps up to a quarter as
    /// many idle connections.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(2);
        self.client.max_idle_connections = self.max_connections.div_ceil(4);
        self
    }

    /// Sets the maximum number of concurrent requests to one receiver, at least 1. Default: 8.
    /// Here, a receiver is a scheme, a host and a port.
    pub fn max_connections_per_receiver(mut self, connections: usize) -> Self {
        self.max_per_receiver = connections.max(1);
        self
    }

    /// Sets the maximum number of requests to one receiver in a second, at least 1. Default: 50.
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
        let reason = match TargetUrl::parse(url, &self.client.policy) {
            Ok(target) if hosts.allow(target.uri()) => return Some(target.uri().to_string()),
            Ok(_) => "no rule matches the host and port".to_owned(),
            Err(error) => error.to_string(),
        };
        tracing::info!(
            reason,
            url = shown_url(url),
            "refused a callback that a client named"
        );
        None
    }
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks")
            .field("secrets", &self.secrets)
            .field("prefer_callback", &self.preference)
            .field("x_callback_url", &self.field)
            .field("retry_delays", &self.delays)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Request};
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::protocol::PREFER;

    fn webhooks() -> Webhooks {
        let hosts: [HostRule; 2] =
            ["h.example", "*.example.org"].map(|host| host.parse().expect("a rule"));
        Webhooks::new()
            .prefer_callback(hosts.clone())
            .x_callback_url(hosts)
    }

    fn select(fields: HeaderMap) -> Result<SelectedTargets, ForbiddenCallback> {
        let (mut head, ()) = Request::new(()).into_parts();
        head.headers = fields;
        webhooks().select(&head, false)
    }

    #[test]
    fn selected_url_is_that_which_is_requested() {
        let mut fields = HeaderMap::new();
        let url = HeaderValue::from_static(" https:\\\\H.example:443/a/../b#c");
        fields.insert(X_CALLBACK_URL, url);
        let preference = HeaderValue::from_static("callback; url=\"https://a.example.org?q\"");
        fields.insert(PREFER, preference);
        let selected = select(fields).expect("allowed");
        let urls: Vec<_> = selected.targets.iter().map(|it| &*it.url).collect();
        assert_eq!(urls, ["https://h.example/b", "https://a.example.org/?q"]);
        assert_eq!(selected.applied, Some("callback"));
    }

    #[test]
    fn durations_are_limited() {
        let webhooks = Webhooks::new()
            .timeout(Duration::MAX)
            .retry_delays([Duration::MAX, Duration::ZERO]);
        assert_eq!(webhooks.client.timeout, MAX_TIMEOUT);
        assert_eq!(webhooks.delays, [MAX_DELAY, Duration::ZERO]);
        let webhooks = webhooks.timeout(Duration::ZERO);
        assert_eq!(webhooks.client.timeout, MIN_TIMEOUT);
    }

    proptest! {
        #[test]
        fn no_value_of_a_field_panics(
            prefer in vec(vec(any::<u8>(), 0..60), 0..3),
            url in vec(vec(any::<u8>(), 0..60), 0..3),
            in_a_preference: bool,
        ) {
            let mut fields = HeaderMap::new();
            for value in prefer {
                let value = if in_a_preference {
                    [b"callback; url=\"https://h.example/", &*value, b"\""].concat()
                } else {
                    value
                };
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    fields.append(PREFER, value);
                }
            }
            for value in url {
                if let Ok(value) = HeaderValue::from_bytes(&value) {
                    fields.append(X_CALLBACK_URL, value);
                }
            }
            if let Ok(selected) = select(fields) {
                // It is sent as it is.
                for target in selected.targets {
                    let parsed = TargetUrl::parse(&target.url, &webhooks().client.policy);
                    let parsed = parsed.expect("a URL");
                    prop_assert_eq!(parsed.uri().to_string(), target.url);
                }
            }
        }
    }
}
