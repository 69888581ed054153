//! The request extensions that are stored with a request.

use std::{any::type_name, fmt, sync::Arc};

use http::Extensions;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// The types of request extensions that are stored with a request.
///
/// Extensions exist in one process only. A store that lets another process run a request serializes
/// those that the application names here.
#[derive(Debug, Clone, Default)]
pub struct CarriedExtensions {
    types: Vec<CarriedType>,
}

/// A type of request extension that is stored with the request.
#[derive(Clone)]
struct CarriedType {
    name: String,
    read: Arc<ReadExtension>,
    insert: Arc<InsertExtension>,
}

type ReadExtension = dyn Fn(&Extensions) -> Option<Value> + Send + Sync;
type InsertExtension =
    dyn Fn(&mut Extensions, Value) -> Result<(), serde_json::Error> + Send + Sync;

impl CarriedExtensions {
    /// Adds the extension `T`, which is stored under `name`.
    pub fn add<T>(&mut self, name: impl Into<String>)
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    {
        let read = |extensions: &Extensions| {
            let value = serde_json::to_value(extensions.get::<T>()?);
            if let Err(error) = &value {
                let name = type_name::<T>();
                tracing::error!(%error, name, "failed to serialize a request extension");
            }
            value.ok()
        };
        let insert = |extensions: &mut Extensions, value| {
            extensions.insert(serde_json::from_value::<T>(value)?);
            Ok(())
        };
        self.types.push(CarriedType {
            name: name.into(),
            read: Arc::new(read),
            insert: Arc::new(insert),
        });
    }

    /// Serializes the carried extensions of a request. One that cannot be serialized is logged and
    /// left out.
    pub fn serialize(&self, extensions: &Extensions) -> Map<String, Value> {
        let types = self.types.iter();
        types
            .filter_map(|carried| Some((carried.name.clone(), (carried.read)(extensions)?)))
            .collect()
    }

    /// Inserts the carried extensions into a request that is about to run. One that cannot be
    /// deserialized is logged and left out.
    pub fn insert(&self, mut values: Map<String, Value>, extensions: &mut Extensions) {
        for carried in &self.types {
            if let Some(value) = values.remove(&carried.name)
                && let Err(error) = (carried.insert)(extensions, value)
            {
                let name = &carried.name;
                tracing::error!(%error, name, "failed to deserialize a request extension");
            }
        }
    }
}

impl fmt::Debug for CarriedType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CarriedType").field(&self.name).finish()
    }
}
