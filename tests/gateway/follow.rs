//! The example `follow` against the gateway.

use tokio::spawn;

use crate::{
    program::{Program, command},
    upstream::Upstream,
};

#[tokio::test]
async fn follow_prints_the_upstream_response() {
    for dialect in ["default", "pending202", "see-other"] {
        let mut upstream = Upstream::start().await;
        let flags = ["--always", "--dialect", dialect];
        let gateway = Program::gateway(upstream.address, &flags).await;
        let url = format!("http://{}/reports", gateway.address);
        // Created here, so that a missing example fails the test and does not stall it.
        let mut follow = command("follow");
        follow.args(["POST", &url]);
        let follow = spawn(async move { follow.output().await });
        upstream.next().await.ok("the report").await;
        let output = follow.await.expect("no panic").expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{dialect}: {error}");
        assert_eq!(output.stdout, b"the report", "{dialect}: {error}");
    }
}
