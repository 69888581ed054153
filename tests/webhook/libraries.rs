//! The official libraries verify what this crate signs, and the other way round.
//!
//! They know the version `v1` alone. `./test` installs those of Python and JavaScript.

use std::{path::PathBuf, process::Command};

use serde_json::{Value, json};
use tower_accepted::webhook::{Secret, Verifier};

use crate::{
    scripts::{clients, run},
    support::{BODY, ID, at, fields, seconds_now, signed},
};

/// Verifies each case with `standardwebhooks` (PyPI), and signs it.
const PYTHON: &str = r#"
import datetime, json, sys
from standardwebhooks import Webhook

results = []
for case in json.loads(sys.stdin.buffer.read()):
    webhook = Webhook(case["secret"])
    try:
        webhook.verify(case["body"].encode(), case["headers"])
        error = None
    except Exception as caught:
        error = str(caught)
    time = datetime.datetime.fromtimestamp(
        int(case["headers"]["webhook-timestamp"]), tz=datetime.timezone.utc
    )
    signature = webhook.sign(case["headers"]["webhook-id"], time, case["body"])
    results.append({"error": error, "signature": signature})
print(json.dumps(results))
"#;

/// The same for `standardwebhooks` (npm).
const JAVASCRIPT: &str = r#"
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const results = JSON.parse(readFileSync(0, "utf8")).map(({ secret, headers, body }) => {
  const webhook = new Webhook(secret);
  let error = null;
  try {
    webhook.verify(Buffer.from(body), headers);
  } catch (caught) {
    error = caught.message;
  }
  const time = new Date(Number(headers["webhook-timestamp"]) * 1000);
  return { error, signature: webhook.sign(headers["webhook-id"], time, body) };
});
console.log(JSON.stringify(results));
"#;

/// The error of the libraries if no signature matches.
const NO_MATCH: &str = "No matching signature found";

/// A request, and whether it is valid.
struct Case {
    secret: Secret,
    signers: Vec<Secret>,
    sent: String,
    received: String,
    is_valid: bool,
}

impl Case {
    fn valid(body: &str) -> Self {
        let secret = Secret::generate();
        Self {
            signers: vec![secret.clone()],
            secret,
            sent: body.to_owned(),
            received: body.to_owned(),
            is_valid: true,
        }
    }
}

fn cases() -> Vec<Case> {
    let letters = BODY.replace(
        "succeeded\"}",
        "succeeded\",\"message\":\"für 20 € – 完了 ✅\"}",
    );
    let large = "0123456789abcdef".repeat(3 * 1024 * 1024 / 16);
    let large = BODY.replace(
        "\"data\":{",
        &format!("\"data\":{{\"message\":\"{large}\","),
    );
    let rotated = Case::valid(BODY);
    let old = rotated.secret.clone();
    vec![
        Case::valid(BODY),
        Case::valid(&letters),
        Case::valid(&large),
        Case {
            signers: vec![Secret::generate_ed25519(), Secret::generate(), old],
            ..rotated
        },
        Case {
            received: BODY.replace("job.succeeded", "job.canceled"),
            is_valid: false,
            ..Case::valid(BODY)
        },
        Case {
            signers: vec![Secret::generate(), Secret::generate_ed25519()],
            is_valid: false,
            ..Case::valid(BODY)
        },
    ]
}

/// Runs a library on all cases, and verifies what it signs.
fn check(library: &mut Command) {
    let cases = cases();
    // The libraries compare with the clock.
    let now = seconds_now();
    let input = cases.iter().map(|case| {
        let signers: Vec<_> = case.signers.iter().collect();
        let headers = signed(&signers, now, case.sent.as_bytes());
        let text = |name| headers[name].to_str().expect("ASCII");
        json!({
            "secret": case.secret.expose(),
            "body": case.received,
            "headers": {
                "webhook-id": text("webhook-id"),
                "webhook-timestamp": text("webhook-timestamp"),
                "webhook-signature": text("webhook-signature"),
            },
        })
    });
    let Some(results) = run(library, &input.collect()) else {
        return;
    };
    let results = results.as_array().expect("results");
    assert_eq!(results.len(), cases.len());
    for (case, result) in cases.into_iter().zip(results) {
        let error = if case.is_valid {
            Value::Null
        } else {
            NO_MATCH.into()
        };
        assert_eq!(result["error"], error);
        let signature = result["signature"].as_str().expect("a signature");
        let headers = fields(ID, &now.to_string(), signature);
        let verifier = Verifier::new([case.secret]);
        let event = verifier.verify_at(at(now), &headers, case.received.as_bytes());
        event.expect("signed by the library");
    }
}

/// Returns `true` if `./test` has installed this library.
fn is_installed(library: PathBuf) -> bool {
    let is_installed = library.is_dir();
    if !is_installed {
        println!(
            "skipped: {} is not installed. Run `./test`",
            library.display()
        );
    }
    is_installed
}

#[test]
fn python_library_verifies_and_signs() {
    let path = clients().join("python");
    if is_installed(path.join("standardwebhooks")) {
        check(
            Command::new("python3")
                .args(["-c", PYTHON])
                .env("PYTHONPATH", path),
        );
    }
}

#[test]
fn javascript_library_verifies_and_signs() {
    if is_installed(clients().join("node_modules/standardwebhooks")) {
        // An import is looked up from the folder that the process runs in.
        let arguments = ["--input-type=module", "-e", JAVASCRIPT];
        check(Command::new("node").args(arguments).current_dir(clients()));
    }
}

#[test]
fn rust_library_verifies_and_signs() {
    let now = seconds_now();
    let time = i64::try_from(now).expect("a time");
    for case in cases() {
        let library = standardwebhooks::Webhook::new(&case.secret.expose()).expect("a secret");
        let signers: Vec<_> = case.signers.iter().collect();
        let headers = signed(&signers, now, case.sent.as_bytes());
        let body = case.received.as_bytes();
        let verified = library.verify(body, &headers);
        assert_eq!(verified.is_ok(), case.is_valid, "{verified:?}");
        let signature = library.sign(ID, time, body).expect("a signature");
        let headers = fields(ID, &now.to_string(), &signature);
        let event = Verifier::new([case.secret]).verify_at(at(now), &headers, body);
        event.expect("signed by the library");
    }
}
