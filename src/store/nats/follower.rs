//! Follows the outputs of unfinished jobs, once in this process for all readers of a job.

use std::{
    mem,
    sync::{Arc, Weak},
    time::Duration,
};

use async_nats::jetstream::consumer::{
    DeliverPolicy,
    push::{Ordered, OrderedConfig},
};
use bytes::Bytes;
use dashmap::{DashMap, Entry};
use futures_util::StreamExt;
use tokio::{
    select,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{
    charged::charged,
    error::NatsError,
    jetstream::JetStream,
    names::ResourceNames,
    output_view::{OutputEnd, OutputView, ViewedOutput},
    part::{OutputId, Part},
    subscribers::{Subscribers, Subscription},
};
use crate::{
    JobId,
    store::{Purpose, compact},
};

/// The delay before a broken subscription is opened again, or a failed look-up is repeated.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// The maximum time between two look-ups: a lost notification delays the end by this much.
const POLL_INTERVAL: Duration = Duration::from_secs(15);

/// The first delay without a part before the follower asks the stream for one, in case the server
/// has lost its consumer. The delay doubles each time, up to [`MAX_CHECK`].
const FIRST_CHECK: Duration = Duration::from_millis(250);
/// The longest such delay.
const MAX_CHECK: Duration = Duration::from_secs(5);

/// The time after which all parts are forgotten if none has followed.
const RECENT_TIME: Duration = Duration::from_secs(1);

/// The followed jobs of this process.
#[derive(Default)]
pub(super) struct Followers {
    /// Map guards are held for a single look or insertion, never across an await.
    jobs: DashMap<JobId, Weak<OutputFollower>>,
}

/// Follows the output of one job until its last reader drops this.
pub(super) struct OutputFollower {
    followers: Arc<Followers>,
    id: JobId,
    view: watch::Receiver<OutputView>,
    task: JoinHandle<()>,
}

impl Followers {
    /// Returns the follower of a job, and starts it for the first reader.
    pub(super) fn follow(
        self: &Arc<Self>,
        jetstream: &Arc<JetStream>,
        subscribers: &Arc<Subscribers>,
        id: JobId,
    ) -> Arc<OutputFollower> {
        let start = || {
            let (view, receiver) = watch::channel(OutputView::default());
            let task = FollowTask {
                jetstream: jetstream.clone(),
                changes: subscribers.subscribe(id),
                id,
                view,
                is_behind: true,
                searched: None,
                last_over: 0,
                has_missed: false,
            };
            Arc::new(OutputFollower {
                followers: self.clone(),
                id,
                view: receiver,
                task: tokio::spawn(task.run()),
            })
        };
        match self.jobs.entry(id) {
            Entry::Occupied(mut entry) => match entry.get().upgrade() {
                Some(follower) => follower,
                None => {
                    let follower = start();
                    entry.insert(Arc::downgrade(&follower));
                    follower
                }
            },
            Entry::Vacant(entry) => {
                let follower = start();
                entry.insert(Arc::downgrade(&follower));
                follower
            }
        }
    }
}

impl OutputFollower {
    pub(super) fn view(&self) -> watch::Receiver<OutputView> {
        self.view.clone()
    }
}

impl Drop for OutputFollower {
    fn drop(&mut self) {
        self.task.abort();
        // Another reader may have started a new follower.
        self.followers
            .jobs
            .remove_if(&self.id, |_, follower| follower.strong_count() == 0);
    }
}

struct FollowTask {
    jetstream: Arc<JetStream>,
    changes: Subscription,
    id: JobId,
    view: watch::Sender<OutputView>,
    /// Set if parts may have been missed.
    is_behind: bool,
    /// The claim whose output was looked for.
    searched: Option<u64>,
    /// The number of the last call that is over.
    last_over: u32,
    /// Set if the stream had a part that the consumer has not delivered.
    has_missed: bool,
}

impl FollowTask {
    /// Runs until the job has ended.
    async fn run(mut self) {
        let mut parts = self.open().await;
        loop {
            // Before the look-up, so that a change during it causes another one.
            self.changes.mark_unchanged();
            let delay = match self.look().await {
                Ok(Some(end)) => {
                    self.view.send_modify(|view| view.end = Some(end));
                    return;
                }
                Ok(None) => POLL_INTERVAL,
                Err(error) => {
                    tracing::warn!(%error, id = %self.id, "failed to look up a job that is read");
                    RETRY_DELAY
                }
            };
            if !self.wait(&mut parts, Instant::now() + delay).await {
                parts = self.open().await;
                self.has_missed = false;
                self.is_behind = true;
            }
        }
    }

    /// Receives parts until the job must be looked up, at the latest at `look_at`. Returns `false`
    /// if the consumer is lost.
    async fn wait(&mut self, parts: &mut Ordered, look_at: Instant) -> bool {
        let mut check_delay = FIRST_CHECK;
        loop {
            let has_recent = {
                let view = self.view.borrow();
                let output = view.output.as_ref();
                output.is_some_and(ViewedOutput::has_recent)
            };
            select! {
                part = parts.next() => match part {
                    Some(Ok(part)) => {
                        self.has_missed = false;
                        check_delay = FIRST_CHECK;
                        if !self.accept(&part.subject, &part.payload) {
                            self.is_behind = true;
                            return true;
                        }
                    }
                    Some(Err(_)) | None => return false,
                },
                () = self.changes.changed() => return true,
                () = sleep_until(look_at) => return true,
                () = sleep(check_delay) => {
                    check_delay = (check_delay * 2).min(MAX_CHECK);
                    if self.has_next_part().await {
                        self.is_behind = true;
                        // The first time, the delivery may be under way.
                        return !mem::replace(&mut self.has_missed, true);
                    }
                }
                () = sleep(RECENT_TIME), if has_recent => {
                    self.view.send_if_modified(|view| {
                        if let Some(output) = &mut view.output {
                            output.forget_recent();
                        }
                        // Nothing that a reader waits for.
                        false
                    });
                }
            }
        }
    }

    /// Returns `true` if the stream has a part that this process has not received.
    async fn has_next_part(&self) -> bool {
        let next = {
            let view = self.view.borrow();
            let output = view.output.as_ref();
            output.map(|output| (output.id, output.count))
        };
        let Some((id, count)) = next else {
            return false;
        };
        let part = self.jetstream.part(id, count).await;
        part.is_ok_and(|part| part.is_some_and(|part| part.seal.is_none()))
    }

    /// Creates a consumer of all parts that are stored from now on.
    async fn open(&self) -> Ordered {
        loop {
            match open(&self.jetstream, self.id).await {
                Ok(parts) => return parts,
                Err(error) => {
                    tracing::warn!(%error, id = %self.id, "failed to follow the output of a job");
                    sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Adds a part that was just stored. Returns `false` if others were missed before it.
    fn accept(&self, subject: &str, payload: &Bytes) -> bool {
        let Some((claim, index)) = ResourceNames::part_position(subject) else {
            return true;
        };
        let part = match Part::decode(subject, payload.clone()) {
            Ok(part) => part,
            Err(error) => {
                tracing::warn!(%error, "failed to read a part of an output");
                return true;
            }
        };
        // The end of the job follows a seal.
        if part.seal.is_some() {
            return true;
        }
        let id = OutputId {
            job: self.id,
            claim,
        };
        let (end, start) = (part.end(), part.start);
        let budget = &self.jetstream.budget;
        let charge = budget.reserve(part.data.len(), Purpose::Replay);
        let data = charge.map(|charge| charged(compact(part.data), charge));
        let mut is_next = true;
        self.view.send_if_modified(|view| {
            if let Some(output) = view.output.as_mut().filter(|output| output.id == id) {
                is_next = index <= output.count;
                // A part that is written again, so that it does not expire, is known.
                if index == output.count {
                    output.push(end, data);
                    return true;
                }
                return false;
            }
            // A part may arrive after this process knows that its call is over.
            let run = view.output.as_ref().map_or(0, |output| output.start.run);
            let run = run.max(self.last_over);
            match start {
                Some(start) if start.run > run => {
                    let mut output = ViewedOutput::new(id, start);
                    output.push(end, data);
                    view.output = Some(output);
                    true
                }
                Some(_) => false,
                // Its first part was missed, unless it belongs to an earlier call.
                None => {
                    is_next = view.output.is_some();
                    false
                }
            }
        });
        is_next
    }

    /// Reads the job. Returns its end, or brings the view up to date.
    async fn look(&mut self) -> Result<Option<OutputEnd>, NatsError> {
        let Some(job) = self.jetstream.find_job_with_claims(self.id).await? else {
            return Ok(Some(OutputEnd::Gone));
        };
        let record = &job.record;
        if record.forgotten || record.is_expired() {
            return Ok(Some(OutputEnd::Gone));
        }
        if record.is_ended() {
            return Ok(Some(OutputEnd::Ended(Arc::new(job))));
        }
        let known = {
            let view = self.view.borrow();
            let output = view.output.as_ref();
            output.map(|output| (output.id.claim, output.start.run, output.count))
        };
        self.last_over = self.last_over.max(record.current_run() - 1);
        let Some(holder) = record.holder else {
            // The call was handed back, or its process has died.
            if known.is_some_and(|(_, run, _)| run <= record.attempts) {
                self.view.send_modify(|view| view.output = None);
            }
            return Ok(None);
        };
        let id = OutputId {
            job: self.id,
            claim: holder.claim,
        };
        match known {
            Some((claim, _, count)) if claim == holder.claim => {
                if self.is_behind {
                    self.catch_up(id, count).await?;
                }
            }
            // The record is older than the output.
            Some((_, run, _)) if run >= record.attempts => {}
            _ => {
                if known.is_some() {
                    self.view.send_modify(|view| view.output = None);
                }
                if self.is_behind || self.searched != Some(holder.claim) {
                    self.search(id).await?;
                }
            }
        }
        self.searched = Some(holder.claim);
        self.is_behind = false;
        Ok(None)
    }

    /// Finds the parts that were missed.
    async fn catch_up(&self, id: OutputId, count: u32) -> Result<(), NatsError> {
        if let Some((index, part)) = self.jetstream.last_part(id, count).await? {
            self.view.send_modify(|view| {
                if let Some(output) = &mut view.output {
                    output.skip_to(index + 1, part.end());
                }
            });
        }
        Ok(())
    }

    /// Finds an output that is unknown so far.
    async fn search(&self, id: OutputId) -> Result<(), NatsError> {
        let Some((index, last)) = self.jetstream.last_part(id, 0).await? else {
            return Ok(());
        };
        let end = last.end();
        let start = match last.start {
            Some(start) => Some(start),
            None => {
                let first = self.jetstream.part(id, 0).await?;
                first.and_then(|part| part.start)
            }
        };
        if let Some(start) = start {
            let mut output = ViewedOutput::new(id, start);
            output.skip_to(index + 1, end);
            self.view.send_modify(|view| view.output = Some(output));
        }
        Ok(())
    }
}

async fn open(jetstream: &JetStream, id: JobId) -> Result<Ordered, NatsError> {
    let config = OrderedConfig {
        deliver_subject: jetstream.context.client().new_inbox(),
        filter_subject: jetstream.names.all_parts(id),
        deliver_policy: DeliverPolicy::New,
        ..OrderedConfig::default()
    };
    let consumer = jetstream.streams.results.create_consumer(config).await;
    let consumer = consumer.map_err(NatsError::unavailable)?;
    consumer.messages().await.map_err(NatsError::unavailable)
}
