//! Configures TLS: the certificates of the system, and those of the application.

use std::{error, fmt, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer};
use rustls_native_certs::load_native_certs;

/// Returns a configuration that trusts the system's root certificates and `extra`.
///
/// # Errors
///
/// Returns an error if a certificate of `extra` is invalid, or if there is no root certificate.
/// `is_insecure` allows to have none, for receivers with plain `http`.
pub(super) fn client_config(
    extra: &[CertificateDer<'static>],
    is_insecure: bool,
) -> Result<ClientConfig, RootCertificateError> {
    let mut roots = RootCertStore::empty();
    let native = load_native_certs();
    for error in native.errors {
        tracing::warn!(%error, "failed to load root certificates of the system");
    }
    roots.add_parsable_certificates(native.certs);
    for certificate in extra {
        roots
            .add(certificate.clone())
            .map_err(RootCertificateError::Invalid)?;
    }
    if roots.is_empty() && !is_insecure {
        return Err(RootCertificateError::Missing);
    }
    Ok(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

/// The client cannot verify any receiver.
#[derive(Debug)]
pub(crate) enum RootCertificateError {
    /// The system has no root certificates, and the application gave none.
    Missing,
    /// A certificate of the application is not a root certificate.
    Invalid(rustls::Error),
}

impl fmt::Display for RootCertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the system has no root certificates for webhooks",
            Self::Invalid(_) => "invalid root certificate for webhooks",
        })
    }
}

impl error::Error for RootCertificateError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Missing => None,
            Self::Invalid(error) => Some(error),
        }
    }
}
