//! What a newcomer sees, and does.

use std::process::Stdio;

use tokio::process::Command;

use crate::program::Program;

#[tokio::test]
async fn the_commands_that_the_gateway_prints_work_when_pasted() {
    if let Err(error) = Command::new("curl").arg("--version").output().await {
        eprintln!("not tested: no curl ({error})");
        return;
    }
    let mut gateway = Program::start("gateway", &["--listen", "127.0.0.1:0"]).await;
    let mut commands = Vec::new();
    while let Some(line) = gateway.line().await {
        if let Some(command) = line.strip_prefix("    ") {
            commands.push(command.to_owned());
            // The tour's end, which has none itself: taken as done when it has told the time.
            if command.contains("/clock") {
                break;
            }
        }
    }
    let clock = commands.pop().expect("the last one");
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
            None => panic!("no {expected:?} where it belongs in {all}"),
        };
    }
    assert!(clock.trim_end().ends_with('Z'), "a time: {clock:?}");
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
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
