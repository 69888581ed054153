//! Clients that send requests and follow each accepted job to its end.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tower::util::BoxCloneSyncService;

use super::{report::Fate, task::Task};
use crate::support::{Answer, Body, Failed, get, send};

/// The number of clients that send requests at a time.
const CLIENTS: usize = 24;

/// The time that a client waits after a refusal.
const REFUSED_DELAY: Duration = Duration::from_millis(100);

pub(super) type Replica = BoxCloneSyncService<Request<Body>, Response<Body>, Failed>;

/// A task that follows one job. It returns the path of the request and how the job ended.
pub(super) type Follower = JoinHandle<(String, String)>;

/// The state that all clients of a run share, by the path of a request.
#[derive(Clone, Default)]
pub(super) struct Progress {
    pub(super) fates: Arc<Mutex<HashMap<String, Fate>>>,
    /// The monitors of accepted jobs that have not ended.
    pub(super) unfinished: Arc<Mutex<HashMap<String, String>>>,
    /// The accepted jobs whose monitor was 404 once.
    pub(super) not_found: Arc<Mutex<Vec<String>>>,
}

/// Sends this many requests, and returns a follower of each accepted one.
pub(super) async fn send_all(
    replicas: &[Replica],
    progress: &Progress,
    jobs: usize,
) -> Vec<Follower> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let numbers = (client..jobs).step_by(CLIENTS);
        clients.spawn(run_client(replicas.to_vec(), progress.clone(), numbers));
    }
    let followers = clients.join_all().await;
    followers.into_iter().flatten().collect()
}

async fn run_client(
    replicas: Vec<Replica>,
    progress: Progress,
    numbers: impl Iterator<Item = usize>,
) -> Vec<Follower> {
    let mut followers = Vec::new();
    for number in numbers {
        let task = Task { number };
        if let Some(location) = submit(&replicas, task).await {
            let path = task.path();
            progress.unfinished.lock().insert(path, location.clone());
            let following = follow(replicas.clone(), location, task, progress.clone());
            followers.push(tokio::spawn(following));
        } else {
            progress.fates.lock().insert(task.path(), Fate::Refused);
            sleep(REFUSED_DELAY).await;
        }
        let pause = rand::random_range(0..400);
        sleep(Duration::from_millis(pause)).await;
    }
    followers
}

/// Sends a request, and returns its monitor if it is accepted.
///
/// A request with a key goes to both replicas at the same time.
async fn submit(replicas: &[Replica], task: Task) -> Option<String> {
    let replica = |turn: usize| &replicas[(task.number / 4 + turn) % 2];
    let mut answers = vec![send(replica(0), task.request())];
    if task.is_keyed() {
        answers.push(send(replica(1), task.request()));
    }
    let mut locations = Vec::new();
    for answer in join_all(answers).await {
        match answer.status {
            StatusCode::ACCEPTED => locations.push(answer.location().to_owned()),
            StatusCode::SERVICE_UNAVAILABLE => {}
            _ => panic!("{}: {answer:?}", task.path()),
        }
    }
    locations.dedup();
    assert!(locations.len() <= 1, "{} is two jobs", task.path());
    locations.pop()
}

/// Polls a random replica until the job has ended, and then checks its result.
async fn follow(
    replicas: Vec<Replica>,
    location: String,
    task: Task,
    progress: Progress,
) -> (String, String) {
    let path = task.path();
    let mut address = location.clone();
    loop {
        let replica = rand::random_range(0..replicas.len());
        let answer: Answer = send(&replicas[replica], get(&address)).await;
        match answer.status {
            StatusCode::OK if address != location => {
                assert!(answer.body == task.body(), "another result than {path}'s");
                return (path, "succeeded".to_owned());
            }
            StatusCode::OK => {
                let document = answer.json();
                match document["status"].as_str() {
                    Some("queued" | "running") => {}
                    Some("succeeded") => address = format!("{location}/result"),
                    _ => {
                        let code = document["error"]["code"].as_str();
                        return (path, code.unwrap_or("none").to_owned());
                    }
                }
            }
            StatusCode::SERVICE_UNAVAILABLE => {}
            // The report fails for it. The job must be found again and end all the same.
            StatusCode::NOT_FOUND => progress.not_found.lock().push(path.clone()),
            _ => panic!("{path} was accepted, and {address} is {answer:?}"),
        }
        let pause = rand::random_range(50..500);
        sleep(Duration::from_millis(pause)).await;
    }
}
