//! The streams and the consumer: made where they are not, and looked at where they are.

use std::{fmt::Debug, time::Duration};

use async_nats::jetstream::{
    consumer::{AckPolicy, Consumer, pull},
    context::{Context, CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
};

use super::{NatsError, NatsOptions, Storage, names::SubjectNames};

/// How much longer than its job the parts of a result are kept: they are written before its end is.
const LONGEST_SLACK: Duration = Duration::from_secs(60);

/// What the servers have of this crate.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    pub(super) queue: Stream<()>,
    pub(super) jobs: Stream<()>,
    pub(super) requests: Stream<()>,
    pub(super) results: Stream<()>,
    pub(super) workers: Consumer<pull::Config>,
}

impl Streams {
    pub(super) async fn make(
        context: &Context,
        names: &SubjectNames,
        options: &NatsOptions,
    ) -> Result<Self, NatsError> {
        let config = |name: String, subject: String| Config {
            name,
            subjects: vec![subject],
            num_replicas: options.replicas,
            storage: match options.storage {
                Storage::File => StorageType::File,
                Storage::Memory => StorageType::Memory,
            },
            max_bytes: -1,
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            max_message_size: -1,
            discard: DiscardPolicy::New,
            ..Config::default()
        };
        let queue = Config {
            retention: RetentionPolicy::WorkQueue,
            ..config(names.queue(), names.all_queued())
        };
        // As the buckets that `nats kv` knows, so that people can look into it.
        let jobs = Config {
            max_age: options.retain,
            max_messages_per_subject: 1,
            allow_rollup: true,
            ..config(names.jobs(), names.all_in_bucket())
        };
        let requests = Config {
            max_age: options.max_queued_for,
            ..config(names.requests(), names.all_requests())
        };
        let results = Config {
            max_age: options.retain + options.retain.min(LONGEST_SLACK),
            ..config(names.results(), names.all_results())
        };
        let queue = stream(context, queue).await?;
        Ok(Self {
            workers: workers(&queue, names, options).await?,
            queue,
            jobs: stream(context, jobs).await?,
            requests: stream(context, requests).await?,
            results: stream(context, results).await?,
        })
    }
}

/// Any number of processes may do this at a time: one makes it, and all look whether it fits.
async fn stream(context: &Context, wanted: Config) -> Result<Stream<()>, NatsError> {
    let found = match context.get_stream(&wanted.name).await {
        Ok(found) => found.cached_info().config.clone(),
        Err(error) if is_missing(&error) => match context.create_stream(&wanted).await {
            Ok(made) => made.cached_info().config.clone(),
            Err(error) if is_taken(&error) => {
                let found = context.get_stream(&wanted.name).await;
                let found = found.map_err(NatsError::unavailable)?;
                found.cached_info().config.clone()
            }
            Err(error) => return Err(NatsError::unavailable(error)),
        },
        Err(error) => return Err(NatsError::unavailable(error)),
    };
    let name = &wanted.name;
    fits(name, "subjects", &found.subjects, &wanted.subjects)?;
    fits(name, "retention", &found.retention, &wanted.retention)?;
    fits(name, "storage", &found.storage, &wanted.storage)?;
    fits(name, "replicas", &found.num_replicas, &wanted.num_replicas)?;
    fits(name, "max age", &found.max_age, &wanted.max_age)?;
    fits(name, "discard policy", &found.discard, &wanted.discard)?;
    fits(
        name,
        "message limit",
        &found.max_messages,
        &wanted.max_messages,
    )?;
    // None is written in two ways. Others than the queue may have one that somebody set.
    if wanted.retention == RetentionPolicy::WorkQueue {
        fits(name, "byte limit", &found.max_bytes.max(0), &0)?;
    }
    fits(
        name,
        "limit of messages per subject",
        &found.max_messages_per_subject,
        &wanted.max_messages_per_subject,
    )?;
    fits(
        name,
        "limit of a message's size",
        &found.max_message_size,
        &wanted.max_message_size,
    )?;
    context
        .get_stream_no_info(name)
        .await
        .map_err(NatsError::unavailable)
}

fn is_missing(error: &async_nats::jetstream::context::GetStreamError) -> bool {
    use async_nats::jetstream::ErrorCode;
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => error.error_code() == ErrorCode::STREAM_NOT_FOUND,
        _ => false,
    }
}

fn is_taken(error: &async_nats::jetstream::context::CreateStreamError) -> bool {
    use async_nats::jetstream::ErrorCode;
    match error.kind() {
        CreateStreamErrorKind::JetStream(error) => {
            error.error_code() == ErrorCode::STREAM_NAME_EXIST
        }
        _ => false,
    }
}

async fn workers(
    queue: &Stream<()>,
    names: &SubjectNames,
    options: &NatsOptions,
) -> Result<Consumer<pull::Config>, NatsError> {
    let name = names.workers();
    let wanted = pull::Config {
        durable_name: Some(name.clone()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: options.lease,
        filter_subject: names.all_queued(),
        // How often a request is run is counted in its job: a delivery is not an attempt.
        max_deliver: -1,
        max_ack_pending: -1,
        ..pull::Config::default()
    };
    let consumer: Consumer<pull::Config> = queue
        .get_or_create_consumer(&name, wanted.clone())
        .await
        .map_err(NatsError::unavailable)?;
    let found = &consumer.cached_info().config;
    fits(&name, "ack policy", &found.ack_policy, &wanted.ack_policy)?;
    fits(&name, "ack wait", &found.ack_wait, &wanted.ack_wait)?;
    fits(
        &name,
        "delivery limit",
        &found.max_deliver,
        &wanted.max_deliver,
    )?;
    let (found, wanted) = (&found.max_ack_pending, &wanted.max_ack_pending);
    fits(&name, "limit of pending acks", found, wanted)?;
    Ok(consumer)
}

fn fits<T: PartialEq + Debug>(
    name: &str,
    setting: &'static str,
    found: &T,
    wanted: &T,
) -> Result<(), NatsError> {
    if found == wanted {
        return Ok(());
    }
    Err(NatsError::Unfit {
        name: name.to_owned(),
        setting,
        found: format!("{found:?}"),
        wanted: format!("{wanted:?}"),
    })
}
