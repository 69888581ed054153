//! The memory of the gateway's process.

use std::{fs, time::Duration};

use tokio::time::timeout;

use crate::{
    client::{ended, post, request, send},
    program::Program,
    upstream::Upstream,
};

/// Guards against a hang; no test waits for it.
const GUARD: Duration = Duration::from_secs(60);

const JOBS: usize = 24;
const RESULT_MIB: usize = 4;

#[tokio::test]
async fn deleted_results_return_their_memory() {
    let mut upstream = Upstream::start().await;
    // By default, free pages are returned after ten seconds.
    let immediately = ("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0");
    let gateway = Program::with_env(upstream.address, immediately, &["--always"]).await;
    let before = resident_mib(&gateway);
    let result = vec![b'x'; RESULT_MIB << 20];
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        let job = post(gateway.address, "/reports", "").await.job();
        let mut received = upstream.next().await;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            result.len()
        );
        received.write(head.as_bytes()).await;
        received.answer(&result).await;
        ended(gateway.address, &job).await;
        jobs.push(job);
    }
    let kept = JOBS * RESULT_MIB;
    assert!(resident_mib(&gateway) >= before + kept);
    for job in jobs {
        let forget = request("DELETE", &job).body("".into());
        send(gateway.address, forget.expect("a request")).await;
    }
    let returned = async {
        while resident_mib(&gateway) > before + kept / 4 {
            tokio::task::yield_now().await;
        }
    };
    timeout(GUARD, returned).await.expect("memory is returned");
}

fn resident_mib(gateway: &Program) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: usize = kib.expect("a size").parse().expect("a number");
    kib / 1024
}
