//! The limit on the fields of a message that is kept.

/// The maximum number of field values in a head, and in trailers, that are kept.
///
/// An [`http::HeaderMap`] panics beyond 24,576 names. The difference is room for the fields that a
/// replay adds. A [`Writer`](crate::store::Writer) gets no more than this.
pub const MAX_FIELD_VALUES: usize = 24_000;
