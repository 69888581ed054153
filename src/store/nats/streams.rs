//! Creates the streams and the consumer, or checks the settings of existing ones.

use std::{fmt::Debug, time::Duration};

use async_nats::jetstream::{
    ErrorCode,
    consumer::{AckPolicy, Consumer, pull},
    context::{
        Context, CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind,
    },
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
};

use super::{
    error::NatsError,
    names::ResourceNames,
    options::{NatsOptions, Storage},
};

/// The maximum time that the chunks of a result are kept beyond their job's record.
///
/// The chunks are written before the record of the end is, so they would expire first.
pub(super) const MAX_RESULT_SLACK: Duration = Duration::from_secs(60);

/// The maximum time that a delivery is kept after its last write.
///
/// It exceeds each delay between two attempts (about 8 days at most), and
/// [`FAILED_RETENTION`](crate::store::FAILED_RETENTION).
const MAX_DELIVERY_AGE: Duration = Duration::from_secs(14 * 24 * 3600);

/// Handles to all streams, and to the consumer of the queue.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    pub(super) queue: Stream<()>,
    pub(super) jobs: Stream<()>,
    pub(super) keys: Stream<()>,
    pub(super) requests: Stream<()>,
    pub(super) results: Stream<()>,
    pub(super) deliveries: Stream<()>,
    pub(super) workers: Consumer<pull::Config>,
}

impl Streams {
    pub(super) async fn open(
        context: &Context,
        names: &ResourceNames,
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
            ..config(names.queue_stream(), names.all_queued())
        };
        // The settings of a key-value bucket, so that `nats kv` can show its entries.
        let bucket = |name, subject, max_age| Config {
            max_age,
            max_messages_per_subject: 1,
            allow_rollup: true,
            ..config(name, subject)
        };
        let jobs = bucket(names.jobs_stream(), names.all_in_bucket(), options.retain);
        let keys = bucket(names.keys_stream(), names.all_keys(), options.max_key_age());
        let requests = Config {
            max_age: options.max_queued_for,
            ..config(names.requests_stream(), names.all_request_chunks())
        };
        let results = Config {
            max_age: options.retain + options.retain.min(MAX_RESULT_SLACK),
            ..config(names.results_stream(), names.all_result_chunks())
        };
        let deliveries = Config {
            max_age: MAX_DELIVERY_AGE,
            max_messages_per_subject: 1,
            ..config(names.deliveries_stream(), names.all_deliveries())
        };
        let queue = open_stream(context, queue).await?;
        Ok(Self {
            workers: open_consumer(&queue, names, options).await?,
            queue,
            jobs: open_stream(context, jobs).await?,
            keys: open_stream(context, keys).await?,
            requests: open_stream(context, requests).await?,
            results: open_stream(context, results).await?,
            deliveries: open_stream(context, deliveries).await?,
        })
    }
}

/// Opens a stream. If several processes do so at once, one creates it and all check it.
async fn open_stream(context: &Context, wanted: Config) -> Result<Stream<()>, NatsError> {
    let found = match context.get_stream(&wanted.name).await {
        Ok(found) => found.cached_info().config.clone(),
        Err(error) if is_missing(&error) => match context.create_stream(&wanted).await {
            Ok(created) => created.cached_info().config.clone(),
            Err(error) if exists(&error) => {
                let found = context.get_stream(&wanted.name).await;
                let found = found.map_err(NatsError::unavailable)?;
                found.cached_info().config.clone()
            }
            Err(error) => return Err(NatsError::unavailable(error)),
        },
        Err(error) => return Err(NatsError::unavailable(error)),
    };
    check_stream(&found, &wanted)?;
    let stream = context.get_stream_no_info(&wanted.name).await;
    stream.map_err(NatsError::unavailable)
}

fn check_stream(found: &Config, wanted: &Config) -> Result<(), NatsError> {
    let name = &wanted.name;
    check(name, "subjects", &found.subjects, &wanted.subjects)?;
    check(name, "retention", &found.retention, &wanted.retention)?;
    check(name, "storage", &found.storage, &wanted.storage)?;
    check(name, "replicas", &found.num_replicas, &wanted.num_replicas)?;
    check(name, "max age", &found.max_age, &wanted.max_age)?;
    check(name, "discard policy", &found.discard, &wanted.discard)?;
    let (has, wants) = (&found.max_messages, &wanted.max_messages);
    check(name, "message limit", has, wants)?;
    // Both 0 and -1 mean no limit. An operator may limit the other streams; the queue's replicas
    // would diverge at a limit.
    if wanted.retention == RetentionPolicy::WorkQueue {
        check(name, "byte limit", &found.max_bytes.max(0), &0)?;
    }
    let has = &found.max_messages_per_subject;
    let wants = &wanted.max_messages_per_subject;
    check(name, "limit of messages per subject", has, wants)?;
    let (has, wants) = (&found.max_message_size, &wanted.max_message_size);
    check(name, "message size limit", has, wants)
}

fn is_missing(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn exists(error: &CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

async fn open_consumer(
    queue: &Stream<()>,
    names: &ResourceNames,
    options: &NatsOptions,
) -> Result<Consumer<pull::Config>, NatsError> {
    let name = names.workers_consumer();
    let wanted = pull::Config {
        durable_name: Some(name.clone()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: options.lease,
        filter_subject: names.all_queued(),
        // The job's record counts the attempts: a delivery is not always one.
        max_deliver: -1,
        max_ack_pending: -1,
        ..pull::Config::default()
    };
    let consumer: Consumer<pull::Config> = queue
        .get_or_create_consumer(&name, wanted.clone())
        .await
        .map_err(NatsError::unavailable)?;
    let found = &consumer.cached_info().config;
    check(&name, "ack policy", &found.ack_policy, &wanted.ack_policy)?;
    check(&name, "ack wait", &found.ack_wait, &wanted.ack_wait)?;
    let (has, wants) = (&found.max_deliver, &wanted.max_deliver);
    check(&name, "delivery limit", has, wants)?;
    let (has, wants) = (&found.max_ack_pending, &wanted.max_ack_pending);
    check(&name, "limit of pending acks", has, wants)?;
    Ok(consumer)
}

fn check<T: PartialEq + Debug>(
    name: &str,
    setting: &'static str,
    found: &T,
    wanted: &T,
) -> Result<(), NatsError> {
    if found == wanted {
        return Ok(());
    }
    Err(NatsError::ConfigMismatch {
        name: name.to_owned(),
        setting,
        found: format!("{found:?}"),
        wanted: format!("{wanted:?}"),
    })
}
