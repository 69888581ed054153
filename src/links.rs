use std::borrow::Cow;

use http::Uri;

/// How the layer writes addresses of its own: in `Location` and its like, and in documents.
///
/// `Host` and `X-Forwarded-*` are never looked at: who sends them could send anything.
///
/// | | example | right where |
/// |---|---|---|
/// | `Path` | `/jobs/tQ3…` | the path a client sees is the one the service sees; any host |
/// | `Base` | `https://api.example.com/v1/jobs/tQ3…` | always, for every client |
/// | `Relative` | `../jobs/tQ3…` | a proxy has stripped a prefix, whichever; the client resolves references (RFC 3986 §5) |
///
/// Clients that take an address as it stands need `Base`: Azure's client library for Python, FHIR's
/// bulk clients, and whatever joins host and path by itself under a stripped prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Links {
    /// The path from the root on.
    #[default]
    Path,
    /// An absolute URL, which begins with this one.
    Base(String),
    /// Relative to the address of the request that is answered; in a document, to the address of the
    /// job's monitor.
    Relative,
}

/// Where a link is written, for those that are relative.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At<'a> {
    /// In a document, to be read at the monitor of its job.
    Document,
    /// In the list of an owner's jobs.
    List,
    /// In the head of an answer from so many levels below the monitor of a job.
    Monitor(usize),
    /// In the head of an answer to a request for this path.
    Request(&'a str),
}

impl Links {
    /// # Panics
    ///
    /// If the base is no absolute URL of HTTP, or has a query.
    pub(crate) fn check(self) -> Self {
        if let Self::Base(base) = &self {
            let uri = base.parse::<Uri>().ok();
            let valid = uri.is_some_and(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https"))
                    && uri.authority().is_some()
                    && uri.query().is_none()
            });
            assert!(
                valid,
                "not an absolute URL that links can begin with: {base:?}"
            );
        }
        self
    }

    /// What comes before a job's id.
    pub(crate) fn prefix<'a>(&self, monitor_path: &'a str, at: At<'_>) -> Cow<'a, str> {
        match (self, at) {
            (Self::Path, _) => Cow::Owned([monitor_path, "/"].concat()),
            (Self::Base(base), _) => {
                let base = base.trim_end_matches('/');
                Cow::Owned(format!("{base}{monitor_path}/"))
            }
            (Self::Relative, At::Document | At::Monitor(0)) => Cow::Borrowed(""),
            (Self::Relative, At::List) => {
                let last = monitor_path.rsplit('/').next().unwrap_or_default();
                Cow::Owned([last, "/"].concat())
            }
            (Self::Relative, At::Monitor(levels)) => Cow::Owned("../".repeat(levels)),
            (Self::Relative, At::Request(path)) => {
                // Up from the last slash to the root, whatever a proxy has put there.
                let levels = path.bytes().filter(|&byte| byte == b'/').count();
                let up = "../".repeat(levels.saturating_sub(1));
                Cow::Owned(format!("{up}{}/", monitor_path.trim_start_matches('/')))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_link_leads_from_any_path_to_the_monitor() {
        for (path, prefix) in [
            ("/", "jobs/"),
            ("/reports", "jobs/"),
            ("/reports/", "../jobs/"),
            ("/a/b/c", "../../jobs/"),
            ("*", "jobs/"),
        ] {
            let at = At::Request(path);
            assert_eq!(Links::Relative.prefix("/jobs", at), prefix, "{path}");
        }
        assert_eq!(Links::Relative.prefix("/jobs", At::Document), "");
        assert_eq!(Links::Relative.prefix("/a/jobs", At::List), "jobs/");
        assert_eq!(Links::Relative.prefix("/jobs", At::Monitor(1)), "../");
    }

    #[test]
    fn a_base_ends_with_or_without_a_slash() {
        for base in ["https://host/v1", "https://host/v1/"] {
            let prefix = Links::Base(base.into()).prefix("/jobs", At::Document);
            assert_eq!(prefix, "https://host/v1/jobs/");
        }
    }

    #[test]
    fn what_is_no_base_is_refused() {
        for base in [
            "",
            "/v1",
            "host",
            "ftp://host",
            "https://host/?q",
            "https://",
        ] {
            let checked = std::panic::catch_unwind(|| Links::Base(base.into()).check());
            assert!(checked.is_err(), "{base}");
        }
    }
}
