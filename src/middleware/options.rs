use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use http::{Response, request::Parts};

use crate::config::Idempotency;

/// On what terms a layer accepts requests.
#[derive(Clone, Default)]
pub(crate) struct Terms {
    pub(crate) idempotency: Idempotency,
    pub(crate) admit: Option<Arc<Admit>>,
    pub(crate) kind: Option<Arc<KindOf>>,
}

type Admit = dyn Fn(&Parts) -> Result<(), Response<Bytes>> + Send + Sync;

type KindOf = dyn for<'a> Fn(&'a Parts) -> Option<Cow<'a, str>> + Send + Sync;

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("idempotency", &self.idempotency)
            .field("admit", &self.admit.is_some())
            .field("kind", &self.kind.is_some())
            .finish()
    }
}
