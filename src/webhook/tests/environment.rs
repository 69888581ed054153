//! Tests variables of the environment: proxies, which do not count, and root certificates.

use std::{
    env,
    path::Path,
    process::{Output, Stdio},
};

use tokio::process::Command;

use super::{
    listener::ForbiddenListener,
    receiver::TlsReceiver,
    support::{client, loopback, post},
};
use crate::webhook::client::{ClientOptions, WebhookClient};

/// Set in the child process of a test.
const CHILD: &str = "TOWER_ACCEPTED_WEBHOOK_CHILD";

fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Runs a test of this file in a process with these variables, and expects it to pass.
///
/// Variables belong to a whole process, so the test cannot set them for itself.
async fn run_in_child(test: &str, variables: &[(&str, String)]) {
    let path = module_path!().split_once("::").expect("a module").1;
    let mut child = Command::new(env::current_exe().expect("a path"));
    child.args(["--exact", &format!("{path}::{test}")]);
    child.env_remove("NO_PROXY").env_remove("no_proxy");
    child.envs(variables.iter().cloned()).env(CHILD, "1");
    let output: Output = child.stdin(Stdio::null()).output().await.expect("a run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    if is_child() {
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
    let variables = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ]
    .map(|name| (name, format!("http://127.0.0.1:{}", proxy.port)));
    run_in_child("proxies_of_the_environment_are_not_used", &variables).await;
    assert_eq!(proxy.count().await, 0);
}

#[tokio::test]
async fn client_needs_a_root_certificate() {
    if is_child() {
        let error = WebhookClient::new(&ClientOptions::default()).expect_err("no certificate");
        assert!(
            error.to_string().contains("no root certificates"),
            "{error}"
        );
        let options = ClientOptions {
            root_certificates: vec![b"not a certificate".to_vec().into()],
            ..ClientOptions::default()
        };
        let error = WebhookClient::new(&options).expect_err("an invalid certificate");
        assert!(error.to_string().starts_with("invalid root"), "{error}");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("empty.pem");
    std::fs::write(&file, "").expect("a file");
    let text = |path: &Path| path.to_str().expect("a text").to_owned();
    let variables = [
        ("SSL_CERT_FILE", text(&file)),
        ("SSL_CERT_DIR", text(folder.path())),
    ];
    run_in_child("client_needs_a_root_certificate", &variables).await;
}
