//! The status document with the links of the monitor.

use crate::{
    config::{LinkOrigin, Settings},
    job::{IdText, Snapshot, document},
};

/// Returns the status document of a job, with links as references from `origin`.
pub(super) fn linked_document(
    origin: LinkOrigin<'_>,
    id: &IdText,
    job: &Snapshot,
    settings: &Settings,
) -> Vec<u8> {
    document(job, id, |to| settings.write_link(to, origin, id))
}
