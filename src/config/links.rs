//! Writes links to the layer's own resources.

use std::iter;

use http::Uri;

use super::error::ConfigError;
use crate::protocol::has_valid_authority;

/// The maximum number of levels that a relative link leads up.
///
/// Without a limit, a client could make the head of a response several times as long as its path.
const MAX_LEVELS: usize = 64;

/// The form of links to the layer's own resources, in `Location` and similar fields and in
/// documents.
///
/// Links never depend on `Host` or `X-Forwarded-*`, which any client can send.
///
/// | | example | use it if |
/// |---|---|---|
/// | `Path` | `/jobs/tQ3…` | clients and the service see the same path, under any host |
/// | `Base` | `https://api.example.com/v1/jobs/tQ3…` | always works, for every client |
/// | `Relative` | `../jobs/tQ3…` | a proxy strips a prefix, and clients resolve references (RFC 3986 §5) |
///
/// Some clients do not resolve references and need `Base`: Azure's client library for Python, FHIR
/// bulk clients, and any client that joins host and path itself under a stripped prefix.
///
/// ```
/// use tower_accepted::{Jobs, Links};
///
/// let jobs = Jobs::builder()
///     .links(Links::Base("https://api.example.com/v1".into()))
///     .build();
/// # let _ = jobs;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Links {
    /// An absolute path.
    #[default]
    Path,
    /// An absolute URL under this base: `http://HOST[:PORT][/PATH]`, or `https`.
    Base(String),
    /// A reference relative to the URI of the request that is answered. In a document it is
    /// relative to the URI of the job's monitor.
    ///
    /// A request for a path of more than 65 levels gets an absolute path.
    Relative,
}

/// The place of a link, which decides how a relative one begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LinkOrigin<'a> {
    /// In a document at the monitor of its job.
    Document,
    /// In the list of an owner's jobs.
    List,
    /// In the head of a response to a request this many levels below the monitor of a job.
    Monitor(usize),
    /// In the head of a response to a request for this path.
    Request(&'a str),
}

impl Links {
    /// # Errors
    ///
    /// Returns an error if the base is not an absolute `http` or `https` URL, or if it has a user,
    /// a query, or a port that does not exist.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let Self::Base(base) = self else {
            return Ok(());
        };
        let is_valid = base.parse::<Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && has_valid_authority(&uri)
                && uri.query().is_none()
                && is_plain(base)
        });
        if is_valid {
            Ok(())
        } else {
            Err(ConfigError::LinkBase(base.clone()))
        }
    }

    /// Writes what precedes a job's id.
    pub(crate) fn write_prefix(
        &self,
        to: &mut Vec<u8>,
        monitor_path: &str,
        origin: LinkOrigin<'_>,
    ) {
        match (self, origin) {
            (Self::Path, _) => to.extend_from_slice(monitor_path.as_bytes()),
            (Self::Base(base), _) => {
                to.extend_from_slice(base.trim_end_matches('/').as_bytes());
                to.extend_from_slice(monitor_path.as_bytes());
            }
            (Self::Relative, LinkOrigin::Document | LinkOrigin::Monitor(0)) => return,
            (Self::Relative, LinkOrigin::Monitor(levels)) => return to.extend(up(levels)),
            (Self::Relative, LinkOrigin::List) => {
                let last = monitor_path.rsplit('/').next().unwrap_or_default();
                to.extend_from_slice(last.as_bytes());
            }
            (Self::Relative, LinkOrigin::Request(path)) => {
                // Up from the last slash to the root, whatever prefix a proxy has stripped.
                let levels = count_slashes(path).saturating_sub(1);
                if levels > MAX_LEVELS {
                    to.extend_from_slice(monitor_path.as_bytes());
                } else {
                    to.extend(up(levels));
                    to.extend_from_slice(monitor_path.trim_start_matches('/').as_bytes());
                }
            }
        }
        to.push(b'/');
    }

    /// Writes an absolute path of the service, as a reference from this many levels below the
    /// monitor of a job.
    pub(crate) fn write_path(
        &self,
        to: &mut Vec<u8>,
        monitor_path: &str,
        depth: usize,
        mut path: &[u8],
    ) {
        match self {
            Self::Path => {}
            Self::Base(base) => to.extend_from_slice(base.trim_end_matches('/').as_bytes()),
            Self::Relative => {
                to.extend(up(count_slashes(monitor_path) + depth));
                path = path.strip_prefix(b"/").unwrap_or(path);
            }
        }
        to.extend_from_slice(path);
    }
}

/// Returns a reference that leads up this many levels.
fn up(levels: usize) -> impl Iterator<Item = u8> {
    iter::repeat_n(*b"../", levels).flatten()
}

fn count_slashes(path: &str) -> usize {
    path.bytes().filter(|&byte| byte == b'/').count()
}

/// Returns `true` if a link can stand unescaped in a document and between the brackets of `Link`:
/// it has only characters of a URI without a fragment (RFC 3986 §2).
pub(super) fn is_plain(link: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte);
    link.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(links: &Links, monitor_path: &str, origin: LinkOrigin<'_>) -> String {
        let mut prefix = Vec::new();
        links.write_prefix(&mut prefix, monitor_path, origin);
        String::from_utf8(prefix).expect("a path")
    }

    #[test]
    fn relative_link_leads_from_any_path_to_the_monitor() {
        for (path, relative) in [
            ("/", "jobs/"),
            ("/reports", "jobs/"),
            ("/reports/", "../jobs/"),
            ("/a/b/c", "../../jobs/"),
            ("*", "jobs/"),
        ] {
            let origin = LinkOrigin::Request(path);
            let prefix = prefix(&Links::Relative, "/jobs", origin);
            assert_eq!(prefix, relative, "{path}");
        }
        let relative = |path, origin| prefix(&Links::Relative, path, origin);
        assert_eq!(relative("/jobs", LinkOrigin::Document), "");
        assert_eq!(relative("/a/jobs", LinkOrigin::List), "jobs/");
        assert_eq!(relative("/jobs", LinkOrigin::Monitor(1)), "../");
    }

    #[test]
    fn long_path_does_not_lengthen_a_relative_link() {
        for (levels, length) in [(64, 3 * 64 + 5), (65, 6), (30_000, 6)] {
            let path = "/a".repeat(levels) + "/";
            let prefix = prefix(&Links::Relative, "/jobs", LinkOrigin::Request(&path));
            assert_eq!(prefix.len(), length, "{prefix}");
        }
    }

    #[test]
    fn path_is_written_as_the_links_are() {
        for (links, expected) in [
            (Links::Path, "/reports/4"),
            (
                Links::Base("https://host/v1/".into()),
                "https://host/v1/reports/4",
            ),
            (Links::Relative, "../../../reports/4"),
        ] {
            let mut written = Vec::new();
            links.write_path(&mut written, "/a/jobs", 1, b"/reports/4");
            assert_eq!(written, expected.as_bytes());
        }
    }

    #[test]
    fn base_may_end_with_a_slash() {
        for base in ["https://host/v1", "https://host/v1/"] {
            let links = Links::Base(base.into());
            let prefix = prefix(&links, "/jobs", LinkOrigin::Document);
            assert_eq!(prefix, "https://host/v1/jobs/");
        }
    }

    #[test]
    fn invalid_bases_are_refused() {
        for base in [
            "",
            "/v1",
            "host",
            "ftp://host",
            "https://host/?q",
            "https://host/\"",
            "https://host/#x",
            "https://",
            "https://host:99999",
            "https://user:password@host",
            "https://:443/v1",
        ] {
            let refused = Err(ConfigError::LinkBase(base.into()));
            assert_eq!(Links::Base(base.into()).check(), refused, "{base}");
        }
    }
}
