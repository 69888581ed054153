use std::{future::poll_fn, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};
use tower_accepted::{
    ErrorCode, Filter, JobId, Owner, Snapshot, Status,
    store::{Acceptance, Collected, End, Finished, Lookup, NewJob, News, Outcome, Report, Store},
};

/// How long anything may take. Nothing waits that long unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn record<St: Store>(store: &St) -> St::Record {
    let (head, ()) = Request::post("/reports").body(()).unwrap().into_parts();
    store.record(&head, &Bytes::from_static(b"asked"), None)
}

/// A job that runs here.
async fn claimed<St: Store>(store: &St, mut new: NewJob) -> St::Claim {
    new.run_here = true;
    match store.accept(&new, record(store)).await {
        Ok(Acceptance::RunHere(claim)) => claim,
        other => panic!("not to be run here: {:?}", other.map(drop)),
    }
}

/// Completes when somebody else has ended the job.
async fn canceled<St: Store>(store: &St, claim: &St::Claim) {
    poll_fn(|cx| store.poll_canceled(claim, cx)).await;
}

/// A job that was made some milliseconds after others.
fn made_at(millis: u64) -> NewJob {
    let mut new = NewJob::new(JobId::random());
    new.created_at += Duration::from_millis(millis);
    new
}

async fn found<St: Store>(store: &St, id: JobId) -> Snapshot {
    match store.get(id).await {
        Ok(Lookup::Found(job)) => *job,
        other => panic!("not found: {other:?}"),
    }
}

fn response(body: &Bytes) -> Response<Collected> {
    Response::new(Collected {
        bytes: body.clone(),
        trailers: None,
        charge: None,
    })
}

fn answered(body: &'static str) -> End {
    End::new(Outcome::Response(response(&Bytes::from_static(
        body.as_bytes(),
    ))))
}

pub(crate) async fn what_is_accepted_is_found_at_once<St: Store>(store: St) {
    for run_here in [true, false] {
        let mut new = NewJob::new(JobId::random());
        let id = new.id;
        new.owner = Some(Owner::new("me"));
        new.run_here = run_here;
        let accepted = store.accept(&new, record(&store)).await.unwrap();
        let job = found(&store, id).await;
        assert_eq!((job.id, job.status), (id, Status::Queued));
        assert_eq!(job.owner, Some(Owner::new("me")));
        drop(accepted);
    }
}

pub(crate) async fn the_first_end_of_a_job_holds<St: Store>(store: St) {
    let id = JobId::random();
    let claim = claimed(&store, NewJob::new(id)).await;
    assert_eq!(
        store.finish(&claim, answered("first")).await.unwrap(),
        Finished::First
    );
    assert_eq!(
        store.finish(&claim, answered("second")).await.unwrap(),
        Finished::Late
    );
    store.cancel(id).await.unwrap();
    let job = found(&store, id).await;
    assert_eq!(job.status, Status::Succeeded);
    assert_eq!(job.response.unwrap().content_length, 5);
    assert!(job.finished_at.is_some() && job.expires_at > job.finished_at);
    let kept = store.result(id).await.unwrap().unwrap();
    assert_eq!(
        kept.into_body().collect().await.unwrap().to_bytes(),
        "first"
    );
}

pub(crate) async fn a_canceled_job_tells_who_runs_it<St: Store>(store: St) {
    let id = JobId::random();
    let claim = claimed(&store, NewJob::new(id)).await;
    assert!(canceled(&store, &claim).now_or_never().is_none());
    let Ok(Lookup::Found(job)) = store.cancel(id).await else {
        panic!("it is there");
    };
    assert_eq!(job.status, Status::Canceled);
    assert_eq!(job.error.unwrap().code, ErrorCode::Canceled);
    timeout(PATIENCE, canceled(&store, &claim)).await.unwrap();
    assert_eq!(
        store.finish(&claim, answered("late")).await.unwrap(),
        Finished::Late
    );
    assert_eq!(found(&store, id).await.status, Status::Canceled);
    assert!(store.result(id).await.unwrap().is_none());
}

pub(crate) async fn a_forgotten_job_is_unknown_and_tells_who_runs_it<St: Store>(store: St) {
    let id = JobId::random();
    let claim = claimed(&store, NewJob::new(id)).await;
    assert!(matches!(store.forget(id).await, Ok(Lookup::Found(_))));
    timeout(PATIENCE, canceled(&store, &claim)).await.unwrap();
    assert!(matches!(store.get(id).await, Ok(Lookup::Unknown)));
    assert_eq!(
        store.finish(&claim, answered("late")).await.unwrap(),
        Finished::Late
    );
    assert!(matches!(store.get(id).await, Ok(Lookup::Unknown)));
    assert!(matches!(store.forget(id).await, Ok(Lookup::Unknown)));

    let id = JobId::random();
    let claim = claimed(&store, NewJob::new(id)).await;
    store.finish(&claim, answered("ended")).await.unwrap();
    assert!(matches!(store.forget(id).await, Ok(Lookup::Found(_))));
    assert!(matches!(store.get(id).await, Ok(Lookup::Unknown)));
    assert!(store.result(id).await.unwrap().is_none());
}

async fn comes_back<St: Store>(store: St, body: Bytes) {
    let id = JobId::random();
    let claim = claimed(&store, NewJob::new(id)).await;
    let mut response = response(&body);
    *response.status_mut() = 418.try_into().unwrap();
    for value in [&b"plain"[..], b"", b"\xff\x80caf\xe9", b"\"quoted\""] {
        let value = HeaderValue::from_bytes(value).unwrap();
        response.headers_mut().append("x-any", value);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    response.body_mut().trailers = Some(Box::new(trailers.clone()));
    let headers = response.headers().clone();
    let end = End::new(Outcome::Response(response));
    assert_eq!(store.finish(&claim, end).await.unwrap(), Finished::First);
    let kept = store.result(id).await.unwrap().unwrap();
    assert_eq!(kept.status(), 418);
    assert_eq!(kept.headers(), &headers);
    let kept = kept.into_body().collect().await.unwrap();
    assert_eq!(kept.trailers(), Some(&trailers));
    assert!(kept.to_bytes() == body, "the body is not what it was");
    let job = found(&store, id).await;
    assert_eq!(job.status, Status::Failed);
    assert_eq!(job.error.unwrap().code, ErrorCode::HttpError);
    assert_eq!(job.response.unwrap().content_length, body.len() as u64);
}

pub(crate) async fn a_result_comes_back_as_it_was<St: Store>(store: St) {
    comes_back(store, Bytes::from_static(b"\0any \xff bytes\r\n")).await;
}

pub(crate) async fn a_large_result_comes_back_as_it_was<St: Store>(store: St) {
    let body: Vec<u8> = (0..3_000_001_u32)
        .map(|byte| (byte * 7 % 251) as u8)
        .collect();
    comes_back(store, body.into()).await;
}

pub(crate) async fn who_follows_a_job_sees_it_to_its_end<St: Store>(store: St) {
    let id = JobId::random();
    let claim = claimed(&store, NewJob::new(id)).await;
    let mut changes = pin!(store.changes(id));
    let first = timeout(PATIENCE, changes.next()).await.unwrap().unwrap();
    assert_eq!((first.status, first.revision), (Status::Queued, 1));
    let started = Report::new(News::Started(Instant::now()));
    store.report(&claim, started).await.unwrap();
    let running = timeout(PATIENCE, changes.next()).await.unwrap().unwrap();
    assert_eq!(running.status, Status::Running);
    store.finish(&claim, answered("done")).await.unwrap();
    let ended = timeout(PATIENCE, changes.next()).await.unwrap().unwrap();
    assert_eq!(ended.status, Status::Succeeded);
    assert!(ended.revision > running.revision && running.revision > first.revision);
    assert!(timeout(PATIENCE, changes.next()).await.unwrap().is_none());
    let mut none = pin!(store.changes(JobId::random()));
    assert!(timeout(PATIENCE, none.next()).await.unwrap().is_none());
}

pub(crate) async fn what_a_call_tells_is_seen<St: Store>(store: St) {
    let id = JobId::random();
    let claim = claimed(&store, NewJob::new(id)).await;
    let mut progress = tower_accepted::Progress::default();
    progress.fraction = Some(0.25);
    progress.message = Some("a quarter".into());
    store
        .report(&claim, Report::new(News::Progress(progress)))
        .await
        .unwrap();
    let mut changes = pin!(store.changes(id));
    let told = async {
        while let Some(job) = changes.next().await {
            if job.progress.fraction == Some(0.25) {
                return job.progress.message;
            }
        }
        None
    };
    let told = timeout(PATIENCE, told).await.unwrap();
    assert_eq!(told.as_deref(), Some("a quarter"));
}

pub(crate) async fn jobs_are_listed_by_owner_and_status_newest_first<St: Store>(store: St) {
    let mut mine = Vec::new();
    for index in 0..5 {
        let mut new = made_at(index);
        new.owner = Some(Owner::new(if index == 3 { "you" } else { "me" }));
        let (id, owner) = (new.id, new.owner);
        let claim = claimed(&store, new).await;
        if index % 2 == 0 {
            store.finish(&claim, answered("done")).await.unwrap();
        }
        if owner == Some(Owner::new("me")) {
            mine.push((id, claim));
        }
    }
    let newest: Vec<JobId> = mine.iter().rev().map(|(id, _)| *id).collect();
    let ids = async |filter: Filter| {
        let page = store.list(&filter).await.unwrap();
        let ids: Vec<JobId> = page.jobs.iter().map(|job| job.id).collect();
        (ids, page.next)
    };
    let me = || Filter::new().owner(Owner::new("me"));
    assert_eq!(ids(me()).await, (newest.clone(), None));
    let (first, next) = ids(me().limit(3)).await;
    assert_eq!(first, newest[..3]);
    let (rest, next) = ids(me().limit(3).after(next.unwrap())).await;
    assert_eq!((rest, next), (newest[3..].to_vec(), None));
    let (ended, _) = ids(me().status(Status::Succeeded)).await;
    assert_eq!(ended, [newest[0], newest[1], newest[3]]);
    assert!(
        ids(Filter::new().owner(Owner::new("nobody")))
            .await
            .0
            .is_empty()
    );
}

pub(crate) async fn all_jobs_are_listed_page_by_page<St: Store>(store: St) {
    let mut made = Vec::new();
    for index in 0..7 {
        let mut new = made_at(index);
        new.run_here = index % 2 == 0;
        made.push((new.id, store.accept(&new, record(&store)).await.unwrap()));
    }
    let mut listed = Vec::new();
    let mut filter = Filter::new().limit(3);
    loop {
        let page = store.list(&filter).await.unwrap();
        listed.extend(page.jobs.iter().map(|job| job.id));
        match page.next {
            Some(next) => filter = filter.after(next),
            None => break,
        }
    }
    let newest: Vec<JobId> = made.iter().rev().map(|(id, _)| *id).collect();
    assert_eq!(listed, newest);
}

pub(crate) async fn what_was_never_there_is_unknown<St: Store>(store: St) {
    let id = JobId::random();
    assert!(matches!(store.get(id).await, Ok(Lookup::Unknown)));
    assert!(matches!(store.cancel(id).await, Ok(Lookup::Unknown)));
    assert!(matches!(store.forget(id).await, Ok(Lookup::Unknown)));
    assert!(store.result(id).await.unwrap().is_none());
}
