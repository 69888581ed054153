//! The events that signed bodies have.

use http::StatusCode;
use serde_json::json;
use tower_accepted::webhook::{EventType, Secret, Verifier, VerifyError, WebhookEvent};

use crate::support::{NOW, at, signed};

fn receive(body: &[u8]) -> Result<WebhookEvent, VerifyError> {
    let secret = Secret::generate_ed25519();
    let headers = signed(&[&secret], NOW, body);
    Verifier::new([secret]).verify_at(at(NOW), &headers, body)
}

#[test]
fn event_has_what_the_document_has() {
    let body = json!({
        "type": "job.failed",
        "timestamp": "2026-11-23T13:41:31.300Z",
        "data": {
            "id": "tQ3nC2hDQ0eY6o1bF9qk5A",
            "status": "failed",
            "percentComplete": 40,
            "message": "page 4 of 10",
            "resourceLocation": "/jobs/tQ3nC2hDQ0eY6o1bF9qk5A/result",
            "response": {"status": 503, "contentLength": 3},
            "error": {"code": "http_error", "message": "The service responded with an error."},
            "x-new": [1],
        },
        "x-new": 1,
    });
    let event = receive(body.to_string().as_bytes()).expect("an event");
    assert_eq!(event.type_name, "job.failed");
    assert_eq!(event.event_type(), Some(EventType::JobFailed));
    assert_eq!(event.timestamp, "2026-11-23T13:41:31.300Z");
    assert_eq!(event.job_id(), Some("tQ3nC2hDQ0eY6o1bF9qk5A"));
    assert_eq!(event.status(), Some("failed"));
    assert_eq!(event.percent_complete(), Some(40));
    assert_eq!(event.message(), Some("page 4 of 10"));
    let result = "/jobs/tQ3nC2hDQ0eY6o1bF9qk5A/result";
    assert_eq!(event.resource_location(), Some(result));
    let status = Some(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(event.response_status(), status);
    assert_eq!(event.error_code(), Some("http_error"));
    let message = "The service responded with an error.";
    assert_eq!(event.error_message(), Some(message));
    assert_eq!(json!(event.data), body["data"]);
}

#[test]
fn members_of_other_types_are_no_errors() {
    let body = json!({
        "type": "job.failed",
        "timestamp": "2026-11-23T13:41:31.300Z",
        "data": {
            "id": 1, "status": null, "percentComplete": 300, "message": [], "resourceLocation": {},
            "response": {"status": 70000}, "error": "x",
        },
    });
    let event = receive(body.to_string().as_bytes()).expect("an event");
    assert_eq!(event.job_id(), None);
    assert_eq!(event.status(), None);
    assert_eq!(event.percent_complete(), None);
    assert_eq!(event.message(), None);
    assert_eq!(event.resource_location(), None);
    assert_eq!(event.response_status(), None);
    assert_eq!(event.error_code(), None);
    assert_eq!(event.error_message(), None);
    assert_eq!(event.data.len(), 7);
}

#[test]
fn unknown_type_is_readable() {
    let body = br#"{"type":"job.paused","timestamp":"2026-11-23T13:41:31.300Z","data":{}}"#;
    let event = receive(body).expect("an event");
    assert_eq!(event.event_type(), None);
    assert_eq!(event.type_name, "job.paused");
}

#[test]
fn names_of_types_round_trip() {
    let names = EventType::ALL.map(EventType::as_str);
    assert_eq!(
        names,
        [
            "job.started",
            "job.progress",
            "job.succeeded",
            "job.failed",
            "job.canceled"
        ]
    );
    for event in EventType::ALL {
        assert_eq!(event.as_str().parse(), Ok(event));
        assert_eq!(event.to_string(), event.as_str());
        let json = serde_json::to_string(&event).expect("a name");
        assert_eq!(json, format!("\"{event}\""));
        assert_eq!(
            serde_json::from_str::<EventType>(&json).expect("a name"),
            event
        );
    }
    for other in ["", "job", "Job.failed", "job.failed "] {
        assert!(other.parse::<EventType>().is_err(), "{other}");
    }
    assert!(serde_json::from_str::<EventType>("\"job.paused\"").is_err());
}

#[test]
fn body_with_other_than_ascii_verifies() {
    let message = "Überweisung: 20 € – готово ✅ 完了 \u{1F600} \0\u{FEFF}";
    let body = json!({
        "type": "job.progress",
        "timestamp": "2026-11-23T13:41:31.300Z",
        "data": {"message": message},
    });
    let event = receive(body.to_string().as_bytes()).expect("an event");
    assert_eq!(event.message(), Some(message));
}

#[test]
fn body_of_several_megabytes_verifies() {
    let message = "0123456789abcdef".repeat(5 * 1024 * 1024 / 16);
    let body = json!({
        "type": "job.progress",
        "timestamp": "2026-11-23T13:41:31.300Z",
        "data": {"message": message},
    });
    let body = body.to_string();
    let event = receive(body.as_bytes()).expect("an event");
    assert_eq!(event.message().map(str::len), Some(5 * 1024 * 1024));
    let mut changed = body.as_bytes().to_vec();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let secret = Secret::generate_ed25519();
    let headers = signed(&[&secret], NOW, body.as_bytes());
    let result = Verifier::new([secret]).verify_at(at(NOW), &headers, &changed);
    assert!(matches!(result, Err(VerifyError::NoMatch)), "{result:?}");
}
