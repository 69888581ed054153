//! A request's head and trailers, in a form that can be stored.

use http::{HeaderMap, Method, Request, Uri, Version, request::Parts};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{carried::CarriedExtensions, fields::StoredFields};

/// A request without its body, in a form that can be stored.
///
/// ```
/// use tower_accepted::store::{CarriedExtensions, StoredRequest};
///
/// let (head, ()) = http::Request::post("/reports").body(())?.into_parts();
/// let carried = CarriedExtensions::default();
/// let json = serde_json::to_vec(&StoredRequest::new(&head, None, &carried))?;
///
/// let stored: StoredRequest = serde_json::from_slice(&json)?;
/// let (restored, trailers) = stored.into_head(&carried)?;
/// assert_eq!(restored.uri, head.uri);
/// assert!(trailers.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredRequest {
    method: String,
    uri: String,
    version: u8,
    headers: StoredFields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trailers: Option<StoredFields>,
    /// The serialized extensions.
    #[serde(rename = "carried", default, skip_serializing_if = "Map::is_empty")]
    extensions: Map<String, Value>,
}

impl StoredRequest {
    /// Stores a request's head and trailers, with the extensions that are carried.
    pub fn new(head: &Parts, trailers: Option<&HeaderMap>, carried: &CarriedExtensions) -> Self {
        Self {
            method: head.method.as_str().to_owned(),
            uri: head.uri.to_string(),
            version: match head.version {
                Version::HTTP_09 => 9,
                Version::HTTP_10 => 10,
                Version::HTTP_2 => 20,
                Version::HTTP_3 => 30,
                _ => 11,
            },
            headers: (&head.headers).into(),
            trailers: trailers.map(StoredFields::from),
            extensions: carried.serialize(&head.extensions),
        }
    }

    /// Returns the request's method.
    ///
    /// # Errors
    ///
    /// Fails if the stored text is not a method, which this crate never writes.
    pub fn method(&self) -> Result<Method, http::Error> {
        Ok(Method::try_from(self.method.as_str())?)
    }

    /// Restores the request's head and its trailers.
    ///
    /// # Errors
    ///
    /// Fails if a part is not valid, or if a map has no room for so many fields.
    pub fn into_head(
        self,
        carried: &CarriedExtensions,
    ) -> Result<(Parts, Option<HeaderMap>), http::Error> {
        let request = Request::builder()
            .method(self.method.as_str())
            .uri(Uri::try_from(self.uri)?)
            .version(match self.version {
                9 => Version::HTTP_09,
                10 => Version::HTTP_10,
                20 => Version::HTTP_2,
                30 => Version::HTTP_3,
                _ => Version::HTTP_11,
            })
            .body(())?;
        let (mut head, ()) = request.into_parts();
        head.headers = self.headers.try_into()?;
        carried.insert(self.extensions, &mut head.extensions);
        let trailers = self.trailers.map(HeaderMap::try_from).transpose()?;
        Ok((head, trailers))
    }
}
