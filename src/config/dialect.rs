/// How the monitor shows a job to clients: one core, three conventions.
///
/// | | `Default` | `Pending202` | `SeeOther` |
/// |---|---|---|---|
/// | the 202 names the monitor in | `Location`, `Operation-Location`, `Link` | `Location`, `Content-Location`, `Link` | `Location`, `Link` |
/// | `Operation-Location` | the monitor | `/jobs/{id}/status` | `/jobs/{id}/status` |
/// | the monitor, while unfinished | 200, document | 202, document, `X-Progress`, `Retry-After` | 202, document |
/// | the monitor, ended | 200, document | the result, with its own status and `AsyncResult` | 303 to the result, document |
/// | `GET /jobs/{id}/status` | 200, document | 200, document | 200, document |
/// | `DELETE` | 204 | 202 | 204 |
/// | which requests | unsafe methods | those, and `GET` with `Prefer: respond-async` | unsafe methods |
/// | for | Azure's client libraries, clients of one's own | OData 4.01 §11.6, FHIR's asynchronous pattern | browsers, `curl -L`, any HTTP library |
///
/// Below, each variant shows a job from its 202 to its result; the exchanges are taken from the tests
/// that assert them.
///
/// Which requests become jobs is the business of the layer's [`Policy`](crate::Policy), too: a closure
/// is taken at its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Dialect {
    /// The monitor is a resource of its own: it always shows the document.
    ///
    /// ```text
    #[doc = include_str!("../guide/exchanges/default.snap")]
    /// ```
    #[default]
    Default,
    /// The monitor is 202 until it is the result.
    ///
    /// ```text
    #[doc = include_str!("../guide/exchanges/pending202.snap")]
    /// ```
    Pending202,
    /// The monitor is 202 until it leads to the result.
    ///
    /// ```text
    #[doc = include_str!("../guide/exchanges/see_other.snap")]
    /// ```
    SeeOther,
}
