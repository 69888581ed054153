//! The commands that the gateway prints for a first try.

use std::process::Stdio;

use tokio::process::Command;

use crate::program::Program;

#[tokio::test]
async fn printed_commands_work_when_pasted() {
    if let Err(error) = Command::new("curl").arg("--version").output().await {
        eprintln!("skipped: curl is not installed ({error})");
        return;
    }
    let mut gateway = Program::start("accepted-gateway", &["--listen", "127.0.0.1:0"]).await;
    let mut commands = Vec::new();
    while let Some(line) = gateway.line().await {
        if let Some(command) = line.strip_prefix("    ") {
            commands.push(command.to_owned());
            // The last command. It never ends, so the test reads one line of it.
            if command.contains("/clock") {
                break;
            }
        }
    }
    let clock = commands.pop().expect("the last command");
    let clock = format!("{clock} | head -n 1");
    let commands = commands.join("\n");
    let (all, clock) = tokio::join!(paste(&commands), paste(&clock));
    let in_order = [
        "HTTP/1.1 202 Accepted",
        "location: /jobs/",
        r#""status":"running""#,
        "HTTP/1.1 200 OK",
        "asyncresult: 200",
        "page,rendered\n1,",
        "\n5,",
        r#""status":"canceled""#,
        "HTTP/1.1 200 OK",
        "quick",
    ];
    let mut rest = all.as_str();
    for expected in in_order {
        rest = match rest.split_once(expected) {
            Some((_, rest)) => rest,
            None => panic!("{expected:?} is missing or out of order in {all}"),
        };
    }
    assert!(clock.trim_end().ends_with('Z'), "not a time: {clock:?}");
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn tour_fits_the_mode() {
    for (mode, text) in [
        ("--preferred", "-X POST -H 'Prefer: respond-async' http://"),
        ("--preferred", "A request without the preference gets"),
        ("--streamed", "A request without the preference is streamed"),
        ("--always", "A fast request is answered 202 too"),
    ] {
        let arguments = ["--listen", "127.0.0.1:0", mode];
        let mut gateway = Program::start("accepted-gateway", &arguments).await;
        while !gateway.line().await.expect("the text").contains(text) {}
    }
}

async fn paste(commands: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", commands])
        .stdin(Stdio::null())
        .output()
        .await
        .expect("a shell");
    String::from_utf8(output.stdout).expect("UTF-8")
}
