//! Paths of requests: one line.

use http::Uri;

use super::input::line;
use crate::{
    config::{LinkOrigin, Links, OwnerFn, Settings},
    follow::reference::resolve,
    job::JobId,
    monitor::route::{Resource, Route},
};

/// Checks three properties of paths.
///
/// - The monitor answers only paths under its own.
/// - Each spelling of a path finds the same job.
/// - A relative link leads from any path to the monitor.
pub fn path(input: &[u8]) {
    let (text, _) = line(input);
    let Ok(text) = str::from_utf8(text) else {
        return;
    };
    for monitor_path in ["/jobs", "/api/jobs"] {
        for has_owner in [false, true] {
            for links in [Links::Path, Links::Relative] {
                let settings = Settings {
                    monitor_path: monitor_path.to_owned(),
                    owner: has_owner.then(|| OwnerFn::new(|_| None)),
                    links,
                    ..Settings::default()
                };
                routes(text, &settings);
            }
        }
    }
    // The target of `OPTIONS *` is no path.
    if let Ok(uri) = text.parse::<Uri>()
        && uri.path().starts_with('/')
    {
        relative_link(uri.path());
    }
}

fn routes(path: &str, settings: &Settings) {
    let prefix = settings.monitor_path.as_str();
    let rest = path.strip_prefix(prefix);
    let route = Route::from_path(path, settings);
    match rest {
        Some(rest) if rest.len() > 1 && rest.starts_with('/') => assert!(route.is_some()),
        Some("" | "/") => {}
        _ => assert_eq!(route, None),
    }
    if let Some(route) = route {
        assert_eq!(Route::from_mounted_path(path, settings), route);
    }
    let Some(Route::Job(id, resource)) = route else {
        return;
    };
    let rest = rest.expect("a path of the monitor");
    assert_eq!(
        Route::from_mounted_path(rest, settings),
        Route::Job(id, resource)
    );
    let of_id = |id: &str| match resource {
        Resource::Monitor => format!("{prefix}/{id}"),
        Resource::Status => format!("{prefix}/{id}/status"),
        Resource::Events => format!("{prefix}/{id}/events"),
        Resource::Result => format!("{prefix}/{id}/result"),
        Resource::Stream => format!("{prefix}/{id}/stream"),
        Resource::Callbacks => format!("{prefix}/{id}/callbacks"),
        Resource::Cancel => format!("{prefix}/{id}/cancel"),
    };
    let plain = id.to_string();
    let coded: String = plain.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for id in [plain, coded.to_ascii_lowercase(), coded] {
        assert_eq!(Route::from_path(&of_id(&id), settings), route);
    }
}

fn relative_link(path: &str) {
    let id: JobId = "AAAAAAAAAAAAAAAAAAAAAA".parse().expect("an id");
    let settings = Settings {
        links: Links::Relative,
        ..Settings::default()
    };
    let mut link = Vec::new();
    settings.write_link(&mut link, LinkOrigin::Request(path), &id.encode());
    let link = String::from_utf8(link).expect("a path");
    let Ok(base) = format!("http://host{path}").parse::<Uri>() else {
        return;
    };
    let monitor = resolve(&base, &link).map(|uri| uri.to_string());
    assert_eq!(monitor, Some(format!("http://host/jobs/{id}")), "{path}");
}
