//! The conventions that the monitor can follow.

/// The convention that the monitor follows.
///
/// | | `Default` | `Pending202` | `SeeOther` |
/// |---|---|---|---|
/// | the 202 names the monitor in | `Location`, `Operation-Location`, `Link` | `Location`, `Content-Location`, `Link` | `Location`, `Link` |
/// | `Operation-Location` | the monitor | `/jobs/{id}/status` | `/jobs/{id}/status` |
/// | monitor of an unfinished job | 200, document | 202, document, `X-Progress`, `Retry-After`, `Location`, `Content-Location` | 202, document |
/// | monitor of an ended job | 200, document | the result, with `AsyncResult` | 303 to the result, document |
/// | … with `Accept: application/http` | 200, document | the result as one HTTP message; also with `OData-MaxVersion: 4.0` and no `Accept` | 303 to the result, which is then one HTTP message |
/// | `GET /jobs/{id}/status` | 200, document | 200, document | 200, document |
/// | `DELETE` | 204 | 202 with `Location` | 204 |
/// | which requests | unsafe methods | unsafe methods, and `GET` with `Prefer: respond-async` | unsafe methods |
/// | for | Azure's client libraries, your own clients | OData 4.01 §11.6, FHIR's asynchronous pattern | browsers, `curl -L`, any HTTP library |
///
/// Below, each variant shows a job from its 202 to its result. The exchanges are those that the
/// tests assert.
///
/// [`AcceptedLayer::any_method`](crate::AcceptedLayer::any_method) and a
/// [`Policy`](crate::Policy) may choose other requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Dialect {
    /// The monitor always serves the document.
    ///
    /// ```text
    #[doc = include_str!("../guide/exchanges/default.snap")]
    /// ```
    #[default]
    Default,
    /// The monitor answers 202, then serves the result.
    ///
    /// ```text
    #[doc = include_str!("../guide/exchanges/pending202.snap")]
    /// ```
    Pending202,
    /// The monitor answers 202, then redirects to the result.
    ///
    /// ```text
    #[doc = include_str!("../guide/exchanges/see_other.snap")]
    /// ```
    SeeOther,
}
