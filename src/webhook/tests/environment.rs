//! Proxies that the environment names.

use std::{env, process::Stdio};

use tokio::process::Command;

use super::{
    listener::ForbiddenListener,
    receiver::TlsReceiver,
    support::{client, loopback, post},
};

/// Set in the child process of the test.
const CHILD: &str = "TOWER_ACCEPTED_WEBHOOK_CHILD";

/// The test runs itself in a process with the variables, since they belong to a whole process.
#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    if env::var_os(CHILD).is_some() {
        let receiver = TlsReceiver::answering(|_, head| {
            assert!(head.starts_with("post /hook?token=secret http/1.1\r\n"));
            "HTTP/1.1 204 No Content\r\n\r\n".into()
        })
        .await;
        let client = client(receiver.policy(), Some(&receiver.certificate), loopback());
        let answer = post(&client, &receiver.target()).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), receiver.connections()), (204, 1));
        return;
    }
    let mut proxy = ForbiddenListener::start().await;
    let name = "webhook::tests::environment::proxies_of_the_environment_are_not_used";
    let mut child = Command::new(env::current_exe().expect("a path"));
    child.args(["--exact", name]).env(CHILD, "1");
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        let url = format!("http://127.0.0.1:{}", proxy.port);
        child
            .env(variable, &url)
            .env(variable.to_lowercase(), &url)
            .env_remove("NO_PROXY")
            .env_remove("no_proxy");
    }
    let output = child.stdin(Stdio::null()).output().await.expect("a run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    assert_eq!(proxy.count().await, 0);
}
