use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    Estimates,
    kind::Kind,
    past::{Seen, seconds},
};

/// What a registry sees of how long jobs take, so that those of other processes can learn from it.
///
/// A [`Store`](crate::store::Store) that processes share is [given](crate::store::Store::share) one. From the first time on that
/// it is [asked](Self::tell), a registry keeps its last 256 jobs to be told. Whatever is lost of this on the way makes an
/// estimate worse, and nothing else.
#[derive(Clone)]
pub struct Experience(Weak<Estimates>);

/// What one registry tells others: its last jobs that succeeded, by kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Lessons {
    /// Who tells it.
    teller: u64,
    /// The number of its last job.
    last: u64,
    /// The jobs of each kind in the order in which they ended, with their numbers.
    kinds: Vec<(String, Vec<Job>)>,
}

/// A job's number among all that ended in its registry.
type Job = (u64, Seen);

impl Experience {
    pub(crate) fn of(estimates: &Arc<Estimates>) -> Self {
        Self(Arc::downgrade(estimates))
    }

    /// What others are to be told; `None` where that is nothing new.
    ///
    /// The more others there are, the less often: all together tell something about three times a second at
    /// most.
    pub fn tell(&self) -> Option<Lessons> {
        self.0.upgrade()?.exchange().tell()
    }

    /// Takes in what another registry told. What it told before, or this one itself, is left out.
    pub fn hear(&self, told: &Lessons) {
        let Some(estimates) = self.0.upgrade() else {
            return;
        };
        for (kind, seen) in estimates.exchange().hear(told) {
            let kind = estimates.kind(kind);
            estimates.kinds.push(
                &kind,
                &seen,
                seconds(SystemTime::now()),
                estimates.poll_cost,
            );
        }
    }

    /// Whether the registry is gone.
    pub fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl Lessons {
    /// Who tells it: random, and the same as long as its registry lives.
    pub fn teller(&self) -> u64 {
        self.teller
    }
}

impl fmt::Debug for Experience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Experience").finish_non_exhaustive()
    }
}

impl Estimates {
    fn exchange(&self) -> &Exchange {
        self.exchange.get_or_init(Exchange::new)
    }
}

/// What is told to other processes, and what has been heard of them.
#[derive(Debug)]
pub(super) struct Exchange {
    teller: u64,
    /// Held for one push, or one copy.
    here: Mutex<Here>,
    /// By teller. Held for one look-up and change.
    heard: Mutex<HashMap<u64, Heard>>,
}

#[derive(Debug, Default)]
struct Here {
    /// The last jobs of each kind.
    kinds: HashMap<Box<str>, VecDeque<Job>>,
    /// How many these are.
    kept: usize,
    /// The number of the last one, from 1 on.
    last: u64,
    /// The last one that was told, and when that was.
    told: Option<(u64, Instant)>,
}

#[derive(Debug)]
struct Heard {
    /// The number of the last job.
    last: u64,
    at: Instant,
}

/// How many jobs are told at a time.
const MOST_JOBS: usize = 256;

/// How many tellers are known at most. What one tells that has been forgotten is learned once more.
const MOST_TELLERS: usize = 1024;

/// How long after it was last heard another process is taken to be there.
const LATELY: Duration = Duration::from_secs(60);

/// How long each process there is makes every one wait before it tells more.
const TURN: Duration = Duration::from_millis(300);

impl Exchange {
    fn new() -> Self {
        Self {
            teller: u64::from_ne_bytes(rand::random()),
            here: Mutex::default(),
            heard: Mutex::default(),
        }
    }

    /// Takes note of a job that ended here.
    pub(super) fn note(&self, kind: &Kind, seen: Seen) {
        let mut here = self.here.lock();
        here.last += 1;
        let job = (here.last, seen);
        let jobs = match here.kinds.get_mut(kind.as_str()) {
            Some(jobs) => jobs,
            None => here.kinds.entry(kind.as_str().into()).or_default(),
        };
        jobs.push_back(job);
        match here.kept < MOST_JOBS {
            true => here.kept += 1,
            false => here.make_room(),
        }
    }

    fn tell(&self) -> Option<Lessons> {
        let heard = self.heard.lock();
        let others = heard.values().filter(|heard| heard.at.elapsed() < LATELY);
        let rest = TURN * others.count() as u32;
        drop(heard);
        let mut here = self.here.lock();
        let last = here.last;
        let is_told = here
            .told
            .is_some_and(|(told, at)| told == last || at.elapsed() < rest);
        if last == 0 || is_told {
            return None;
        }
        here.told = Some((last, Instant::now()));
        let kinds = here.kinds.iter();
        let kinds =
            kinds.map(|(kind, jobs)| (kind.as_ref().into(), jobs.iter().copied().collect()));
        Some(Lessons {
            teller: self.teller,
            last,
            kinds: kinds.collect(),
        })
    }

    /// What is new of it, by kind.
    fn hear<'a>(&self, told: &'a Lessons) -> impl Iterator<Item = (&'a str, Vec<Seen>)> {
        let known = self.known_of(told);
        told.kinds
            .iter()
            .take(MOST_JOBS)
            .filter_map(move |(kind, jobs)| {
                let new = jobs.iter().filter(|(number, _)| *number > known);
                let new: Vec<Seen> = new.map(|(_, seen)| *seen).take(MOST_JOBS).collect();
                (!new.is_empty()).then_some((kind.as_str(), new))
            })
    }

    /// The last job that is known of this teller; from now on, all that it has told.
    fn known_of(&self, told: &Lessons) -> u64 {
        if told.teller == self.teller {
            return u64::MAX;
        }
        let mut heard = self.heard.lock();
        let known = heard.get(&told.teller).map_or(0, |heard| heard.last);
        if told.last > known {
            if known == 0 && heard.len() == MOST_TELLERS {
                let longest_ago = heard.iter().min_by_key(|(_, heard)| heard.at);
                let longest_ago = longest_ago.map(|(&teller, _)| teller);
                longest_ago.and_then(|teller| heard.remove(&teller));
            }
            let (last, at) = (told.last, Instant::now());
            heard.insert(told.teller, Heard { last, at });
        }
        known
    }
}

impl Here {
    /// Lets the oldest job go of the kind that has the most: one kind in great numbers drives out none of which
    /// there are few.
    fn make_room(&mut self) {
        let most = self.kinds.iter_mut().max_by_key(|(_, jobs)| jobs.len());
        if let Some((kind, jobs)) = most {
            jobs.pop_front();
            if jobs.is_empty() {
                let kind = kind.clone();
                self.kinds.remove(&kind);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pace::Halfway, *};

    const SECOND: Duration = Duration::from_secs(1);

    fn registry() -> (Arc<Estimates>, Experience) {
        let estimates = Arc::new(Estimates::new(SECOND));
        let experience = Experience::of(&estimates);
        assert!(experience.tell().is_none(), "nothing was seen");
        (estimates, experience)
    }

    fn learn(estimates: &Estimates, name: &str, jobs: usize) {
        let kind = estimates.kind(name);
        for _ in 0..jobs {
            let (now, ran) = (SystemTime::now(), 20 * SECOND);
            estimates.learn(&kind, now, Duration::ZERO, ran, &Halfway::default());
        }
    }

    fn known(estimates: &Estimates, name: &str) -> usize {
        let kind = estimates.kind(name);
        kind.history().map_or(0, |history| history.count())
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_registry_has_seen_the_other_knows() {
        let (one, telling) = registry();
        let (other, hearing) = registry();
        learn(&one, "POST /a", 50);
        learn(&one, "POST /b", 9);
        hearing.hear(&telling.tell().expect("new"));
        assert_eq!(
            (known(&other, "POST /a"), known(&other, "POST /b")),
            (50, 9)
        );
        let now = Instant::now();
        let whole = other.whole(&other.kind("POST /a"), now, now, None, None);
        let whole = whole.expect("an estimate").as_secs_f64();
        assert!((19.0..21.0).contains(&whole), "{whole}");
        assert!(hearing.tell().is_none(), "what was heard is not told on");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_heard_twice_or_of_oneself_counts_once() {
        let (one, telling) = registry();
        let (other, hearing) = registry();
        let mut all = Vec::new();
        for jobs in [3, 4, 5] {
            learn(&one, "POST /a", jobs);
            tokio::time::sleep(SECOND).await;
            all.push(telling.tell().expect("new"));
        }
        assert!(telling.tell().is_none());
        for told in [&all[0], &all[1], &all[0], &all[2], &all[1], &all[2]] {
            hearing.hear(told);
            telling.hear(told);
        }
        assert_eq!((known(&one, "POST /a"), known(&other, "POST /a")), (12, 12));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_late_hears_the_last_that_were_seen() {
        let (one, telling) = registry();
        learn(&one, "POST /rare", 10);
        learn(&one, "POST /a", 2_000);
        let told = telling.tell().expect("new");
        let json = serde_json::to_vec(&told).expect("JSON");
        assert!(json.len() < 10_000, "{}", json.len());
        let (late, hearing) = registry();
        hearing.hear(&serde_json::from_slice(&json).expect("as it was told"));
        assert_eq!(
            (known(&late, "POST /a"), known(&late, "POST /old")),
            (128, 0)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_more_there_are_the_less_often_each_tells() {
        let (one, telling) = registry();
        for _ in 0..100 {
            let (other, others) = registry();
            learn(&other, "POST /a", 1);
            telling.hear(&others.tell().expect("new"));
        }
        let mut times = 0;
        for _ in 0..300 {
            learn(&one, "POST /a", 1);
            times += usize::from(telling.tell().is_some());
            tokio::time::sleep(SECOND).await;
        }
        // In the first minute each half minute, and then, of the others there are no more, each second.
        assert!((240..=243).contains(&times), "{times}");
    }

    #[test]
    fn what_is_no_sense_does_no_harm() {
        let (estimates, hearing) = registry();
        for told in [
            r#"{"teller":1,"last":0,"kinds":[]}"#,
            r#"{"teller":2,"last":9,"kinds":[["POST /a",[]],["POST /a",[[0,[1,2,3,4]]]]]}"#,
            r#"{"teller":3,"last":18446744073709551615,"kinds":[["POST /a",[[7,[4294967295,0,0,0]]]]]}"#,
        ] {
            hearing.hear(&serde_json::from_str(told).expect("told"));
        }
        assert_eq!(known(&estimates, "POST /a"), 1);
    }

    #[test]
    fn a_registry_that_is_gone_neither_tells_nor_hears() {
        let (one, telling) = registry();
        learn(&one, "POST /a", 1);
        let told = telling.tell().expect("new");
        let (other, over) = registry();
        drop(other);
        assert!(over.is_over());
        over.hear(&told);
        assert!(over.tell().is_none());
    }
}
