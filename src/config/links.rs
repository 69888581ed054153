use std::iter;

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
                    && is_plain(base)
            });
            assert!(
                valid,
                "not an absolute URL that links can begin with: {base:?}"
            );
        }
        self
    }

    /// Writes what comes before a job's id.
    pub(crate) fn write_prefix(&self, to: &mut Vec<u8>, monitor_path: &str, at: At<'_>) {
        let up = |levels| iter::repeat_n(*b"../", levels).flatten();
        match (self, at) {
            (Self::Path, _) => to.extend_from_slice(monitor_path.as_bytes()),
            (Self::Base(base), _) => {
                to.extend_from_slice(base.trim_end_matches('/').as_bytes());
                to.extend_from_slice(monitor_path.as_bytes());
            }
            (Self::Relative, At::Document | At::Monitor(0)) => return,
            (Self::Relative, At::Monitor(levels)) => return to.extend(up(levels)),
            (Self::Relative, At::List) => {
                let last = monitor_path.rsplit('/').next().unwrap_or_default();
                to.extend_from_slice(last.as_bytes());
            }
            (Self::Relative, At::Request(path)) => {
                // Up from the last slash to the root, whatever a proxy has put there.
                let levels = path.bytes().filter(|&byte| byte == b'/').count();
                to.extend(up(levels.saturating_sub(1)));
                to.extend_from_slice(monitor_path.trim_start_matches('/').as_bytes());
            }
        }
        to.push(b'/');
    }
}

/// Whether a link can stand as it is in a document and between the brackets of `Link`: it has no
/// character but those of a URI without a fragment (RFC 3986 §2), though more are often let through.
pub(crate) fn is_plain(link: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte);
    link.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(links: &Links, monitor_path: &str, at: At<'_>) -> String {
        let mut prefix = Vec::new();
        links.write_prefix(&mut prefix, monitor_path, at);
        String::from_utf8(prefix).expect("a path")
    }

    #[test]
    fn a_relative_link_leads_from_any_path_to_the_monitor() {
        for (path, relative) in [
            ("/", "jobs/"),
            ("/reports", "jobs/"),
            ("/reports/", "../jobs/"),
            ("/a/b/c", "../../jobs/"),
            ("*", "jobs/"),
        ] {
            let at = At::Request(path);
            assert_eq!(prefix(&Links::Relative, "/jobs", at), relative, "{path}");
        }
        assert_eq!(prefix(&Links::Relative, "/jobs", At::Document), "");
        assert_eq!(prefix(&Links::Relative, "/a/jobs", At::List), "jobs/");
        assert_eq!(prefix(&Links::Relative, "/jobs", At::Monitor(1)), "../");
    }

    #[test]
    fn a_base_ends_with_or_without_a_slash() {
        for base in ["https://host/v1", "https://host/v1/"] {
            let links = Links::Base(base.into());
            let prefix = prefix(&links, "/jobs", At::Document);
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
            "https://host/\"",
            "https://host/#x",
            "https://",
        ] {
            let checked = std::panic::catch_unwind(|| Links::Base(base.into()).check());
            assert!(checked.is_err(), "{base}");
        }
    }
}
