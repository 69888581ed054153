//! The guide's request is a real one, and its receivers in other languages verify requests.

use std::process::Command;

use http::HeaderMap;
use serde_json::{Value, json};
use tower_accepted::webhook::{Secret, Verifier};

use crate::{
    scripts::{clients, run},
    support::{BODY, at, seconds_now, signed},
};

const GUIDE: &str = include_str!("../../src/guide/webhooks.md");

/// Calls the guide's function for each case of the input.
const PYTHON: &str = r#"
import contextlib, json, sys
cases = json.loads(sys.stdin.buffer.read())
with contextlib.redirect_stdout(sys.stderr):
    answers = [receive(case["body"].encode(), case["headers"]) for case in cases]
print(json.dumps(answers))
"#;

const JAVASCRIPT: &str = r#"
import { readFileSync } from "node:fs";
const cases = JSON.parse(readFileSync(0, "utf8"));
const answers = cases.map(({ body, headers }) => receive(Buffer.from(body), headers));
console.log(JSON.stringify(answers));
"#;

/// Returns the first block of the guide in this language.
fn block(language: &str) -> &'static str {
    let (_, rest) = GUIDE
        .split_once(&format!("```{language}\n"))
        .expect("a block");
    rest.split_once("```").expect("its end").0
}

/// A secret, and requests with the status that the guide's receivers answer.
fn cases() -> (Secret, Value) {
    let secret = Secret::generate();
    let headers = signed(&[&secret], seconds_now(), BODY.as_bytes());
    let text = |name| headers[name].to_str().expect("ASCII");
    let headers = json!({
        "webhook-id": text("webhook-id"),
        "webhook-timestamp": text("webhook-timestamp"),
        "webhook-signature": text("webhook-signature"),
    });
    let forged = BODY.replace("succeeded", "failed");
    let cases = json!([{"body": BODY, "headers": headers}, {"body": forged, "headers": headers}]);
    (secret, cases)
}

fn check(receiver: &mut Command) {
    let (secret, cases) = cases();
    let receiver = receiver.env("WEBHOOK_SECRET", secret.expose());
    if let Some(answers) = run(receiver, &cases) {
        assert_eq!(answers, json!([204, 400]));
    }
}

#[test]
fn request_of_the_guide_has_a_valid_signature() {
    let (head, body) = block("http").split_once("\n\n").expect("a body");
    let mut headers = HeaderMap::new();
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(": ").expect("a field");
        let name: http::HeaderName = name.parse().expect("a name");
        headers.append(name, value.parse().expect("a value"));
    }
    // The guide breaks the line, which is too long for a page.
    let body = body.trim_end().replace(",\n ", ",");
    assert_eq!(headers["content-length"], body.len().to_string());
    let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        .parse()
        .expect("a secret");
    let verifier = Verifier::new([secret]);
    let event = verifier.verify_at(at(1_795_954_574), &headers, body.as_bytes());
    assert_eq!(
        event.expect("a valid signature").status(),
        Some("succeeded")
    );
}

#[test]
fn python_receiver_of_the_guide_verifies() {
    let path = clients().join("python");
    if path.join("standardwebhooks").is_dir() {
        let script = [block("python"), PYTHON].concat();
        check(
            Command::new("python3")
                .args(["-c", &script])
                .env("PYTHONPATH", path),
        );
    } else {
        println!("skipped: standardwebhooks is not installed from PyPI. Run `./test`");
    }
}

#[test]
fn javascript_receiver_of_the_guide_verifies() {
    if clients().join("node_modules/standardwebhooks").is_dir() {
        let script = [block("javascript"), JAVASCRIPT].concat();
        let arguments = ["--input-type=module", "-e", &script];
        check(Command::new("node").args(arguments).current_dir(clients()));
    } else {
        println!("skipped: standardwebhooks is not installed from npm. Run `./test`");
    }
}
