//! placeholder
mod answer;
mod body;
mod cancel;
mod carried;
mod chase;
mod document;
mod error;
mod followed;
mod future;
mod layer;
mod links;
mod options;
mod origin;
mod pace;
mod reference;
mod retry_after;
mod service;
mod update;

pub use self::{
    body::FollowBody,
    document::StatusDocument,
    error::{FollowError, Reason},
    followed::{Followed, NotFollowed},
    future::ResponseFuture,
    layer::FollowAcceptedLayer,
    service::FollowAccepted,
    update::{Observer, Update},
};
