//! The physical limit: records are appended to a file, and one sync covers a group of them.

use std::{fs::File, io::Write, path::PathBuf, sync::mpsc, thread};

use tokio::sync::oneshot;

use crate::load::{BODY_BYTES, Times, measure_warm};

/// The largest group.
const MAX_RECORDS: usize = 256;

/// Appends this many records at a time.
pub(crate) async fn measure(path: PathBuf, in_flight: usize) -> Times {
    let (sender, receiver) = mpsc::channel::<oneshot::Sender<()>>();
    let appending = thread::spawn(move || {
        let mut file = File::create(path).expect("a file");
        while let Ok(first) = receiver.recv() {
            let mut group = vec![first];
            group.extend(receiver.try_iter().take(MAX_RECORDS - 1));
            let bytes = vec![7; group.len() * BODY_BYTES];
            file.write_all(&bytes).expect("room");
            file.sync_data().expect("a disk");
            for reply in group {
                let _ = reply.send(());
            }
        }
    });
    let times = measure_warm(in_flight, || {
        let (reply, appended) = oneshot::channel();
        sender.send(reply).expect("the thread runs");
        async { appended.await.expect("the thread runs") }
    });
    let times = times.await;
    drop(sender);
    appending.join().expect("no panic");
    times
}
