use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{Response, request::Parts};

use crate::idempotency::Idempotency;

/// On what terms a layer accepts requests.
#[derive(Clone, Default)]
pub(crate) struct Terms {
    pub(crate) idempotency: Idempotency,
    pub(crate) admit: Option<Arc<Admit>>,
}

type Admit = dyn Fn(&Parts) -> Result<(), Response<Bytes>> + Send + Sync;

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("idempotency", &self.idempotency)
            .field("admit", &self.admit.is_some())
            .finish()
    }
}
