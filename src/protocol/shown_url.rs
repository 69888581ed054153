//! URLs as they may be shown.

/// Returns a URL without its query, since that may be a secret.
pub(crate) fn shown_url(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}
