//! Writes links to the layer's own resources.

use std::iter;

use http::Uri;

use super::error::ConfigError;
use crate::protocol::has_valid_authority;

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
        let up = |levels| iter::repeat_n(*b"../", levels).flatten();
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
                let levels = path.bytes().filter(|&byte| byte == b'/').count();
                to.extend(up(levels.saturating_sub(1)));
                to.extend_from_slice(monitor_path.trim_start_matches('/').as_bytes());
            }
        }
        to.push(b'/');
    }
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
