//! Clients, policies and name servers for the tests.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method};
use hyper_util::client::legacy::connect::dns::Name;
use rustls::pki_types::CertificateDer;
use tower::service_fn;

use crate::webhook::{
    address_policy::AddressPolicy,
    client::{ClientOptions, ReceiverAnswer, WebhookClient},
    resolver::Resolver,
    send_error::{SendError, SendFailure},
    target_url::TargetUrl,
};

/// Fails if a test would otherwise wait for ever.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A policy that allows everything.
pub(super) fn insecure() -> AddressPolicy {
    AddressPolicy {
        is_insecure: true,
        ..AddressPolicy::default()
    }
}

/// A policy with these hosts as exceptions.
pub(super) fn internal(rules: &[String]) -> AddressPolicy {
    let rules = rules.iter().map(|rule| rule.parse().expect("a rule"));
    AddressPolicy {
        internal: rules.collect(),
        ..AddressPolicy::default()
    }
}

/// A name server that answers with the addresses of a closure, or an error if there are none.
pub(super) fn names(
    look_up: impl Fn(&str) -> Vec<IpAddr> + Clone + Send + Sync + 'static,
) -> impl Resolver {
    service_fn(move |name: Name| {
        let addresses = look_up(name.as_str());
        async move {
            if addresses.is_empty() {
                return Err(io::Error::other("no such name"));
            }
            let addresses = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(addresses.collect::<Vec<_>>().into_iter())
        }
    })
}

/// A name server that answers each name with this machine's address.
pub(super) fn loopback() -> impl Resolver {
    names(|_| vec![IpAddr::from([127, 0, 0, 1])])
}

/// A client with the default timeout.
pub(super) fn client<R: Resolver>(
    policy: AddressPolicy,
    root: Option<&CertificateDer<'static>>,
    resolver: R,
) -> WebhookClient<R> {
    let options = ClientOptions {
        policy,
        root_certificates: root.into_iter().cloned().collect(),
        ..ClientOptions::default()
    };
    client_of(options, resolver)
}

/// A client that trusts at least one certificate, so that tests need none of the system.
pub(super) fn client_of<R: Resolver>(mut options: ClientOptions, resolver: R) -> WebhookClient<R> {
    if options.root_certificates.is_empty() {
        let certified = rcgen::generate_simple_self_signed(["unused.test".to_owned()]);
        let certificate = certified.expect("a certificate").cert.der().clone();
        options.root_certificates.push(certificate);
    }
    WebhookClient::with_resolver(&options, resolver).expect("a client")
}

/// Posts to a URL that the policy allows.
pub(super) async fn post<R: Resolver>(
    client: &WebhookClient<R>,
    target: &TargetUrl,
) -> Result<ReceiverAnswer, SendError> {
    let body = Bytes::from_static(b"{}");
    let sent = client.send(target, Method::POST, HeaderMap::new(), body);
    tokio::time::timeout(PATIENCE, sent)
        .await
        .expect("the client has a timeout")
}

/// Posts, and returns the kind of the error.
pub(super) async fn failure<R: Resolver>(
    client: &WebhookClient<R>,
    target: &TargetUrl,
) -> Option<SendFailure> {
    post(client, target)
        .await
        .err()
        .map(|error| error.failure())
}
