//! The status monitor: the resources under the monitor's path.

mod accepted;
mod body;
mod callbacks;
mod document;
mod event_ids;
mod events;
mod list;
mod live_body;
mod message;
mod page;
mod precondition;
mod replay;
mod respond;
mod response_buffer;
mod result;
mod route;
mod service;
mod status;
mod stream;
mod stream_head;
mod stream_query;
mod wait;

pub(crate) use self::{
    accepted::{accepted, link, see_page},
    document::linked_document,
    live_body::{ResultRead, live},
    respond::{Answer, answer},
    result::{joined_response, watched},
    route::Route,
};
pub use self::{
    body::MonitorBody,
    service::{Monitor, MonitorFuture},
};
