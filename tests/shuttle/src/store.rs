//! A stand-in for the crate's `store`.

use std::pin::Pin;

use bytes::Bytes;
use http::Response;
use http_body::Body;

use crate::protocol::BoxError;

pub struct Reading {
    pub response: Response<ResultBody>,
}

impl Reading {
    pub fn new(_run: u32, _available: u64, response: Response<ResultBody>) -> Self {
        Self { response }
    }
}

pub struct ResultBody {
    pub body: Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>,
}

impl ResultBody {
    pub fn streamed(body: impl Body<Data = Bytes, Error = BoxError> + Send + 'static) -> Self {
        Self {
            body: Box::pin(body),
        }
    }
}
