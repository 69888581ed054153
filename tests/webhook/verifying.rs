//! The requests that a receiver accepts and rejects.

use std::{error::Error as _, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::{collection::vec, prelude::*};
use tower_accepted::webhook::{Secret, Verifier, VerifyError, VerifyKey, WebhookEvent};

use crate::support::{BODY, ID, NOW, at, fields, seconds_now, signed};

const FIELDS: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

fn verify(secret: &Secret, headers: &HeaderMap, body: &[u8]) -> Result<WebhookEvent, VerifyError> {
    Verifier::new([secret.clone()]).verify_at(at(NOW), headers, body)
}

fn both_kinds() -> [Secret; 2] {
    [Secret::generate(), Secret::generate_ed25519()]
}

fn is_no_match(result: &Result<WebhookEvent, VerifyError>) -> bool {
    matches!(result, Err(VerifyError::NoMatch))
}

#[test]
fn either_kind_of_signature_is_accepted() {
    for secret in both_kinds() {
        let headers = signed(&[&secret], NOW, BODY.as_bytes());
        let event = verify(&secret, &headers, BODY.as_bytes()).expect("valid");
        assert_eq!(event.id, ID);
        assert_eq!(event.job_id(), Some("tQ3nC2hDQ0eY6o1bF9qk5A"));
    }
}

#[test]
fn verifier_uses_the_clock() {
    let secret = Secret::generate();
    let verifier = Verifier::new([secret.clone()]);
    let now = seconds_now();
    let headers = signed(&[&secret], now, BODY.as_bytes());
    verifier.verify(&headers, BODY.as_bytes()).expect("valid");
    let headers = signed(&[&secret], now - 3600, BODY.as_bytes());
    let old = verifier.verify(&headers, BODY.as_bytes());
    assert!(matches!(old, Err(VerifyError::TooOld)), "{old:?}");
}

#[test]
fn body_that_was_changed_is_rejected() {
    for secret in both_kinds() {
        let headers = signed(&[&secret], NOW, BODY.as_bytes());
        for at in 0..BODY.len() {
            let mut body = BODY.as_bytes().to_vec();
            body[at] ^= 1;
            assert!(is_no_match(&verify(&secret, &headers, &body)), "{at}");
        }
        for body in ["", "{}", &format!("{BODY} "), &BODY[..BODY.len() - 1]] {
            assert!(is_no_match(&verify(&secret, &headers, body.as_bytes())));
        }
    }
}

#[test]
fn id_and_timestamp_are_signed() {
    for secret in both_kinds() {
        let headers = signed(&[&secret], NOW, BODY.as_bytes());
        let later = (NOW + 1).to_string();
        for (name, other) in [
            ("webhook-id", "evt_3KWPBgLlAfxdpx2AI54pPJ85f4W"),
            ("webhook-timestamp", &later),
            ("webhook-timestamp", &format!("0{NOW}")),
        ] {
            let mut headers = headers.clone();
            headers.insert(name, HeaderValue::from_str(other).expect("a value"));
            let result = verify(&secret, &headers, BODY.as_bytes());
            assert!(is_no_match(&result), "{name}: {result:?}");
        }
    }
}

#[test]
fn each_bit_of_a_signature_counts() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    for secret in both_kinds() {
        let signature = secret.sign(ID, NOW, BODY.as_bytes());
        let (version, base64) = signature.split_once(',').expect("a version");
        let bytes = STANDARD.decode(base64).expect("base64");
        let verify = |bytes: &[u8]| {
            let signature = format!("{version},{}", STANDARD.encode(bytes));
            let headers = fields(ID, &NOW.to_string(), &signature);
            verify(&secret, &headers, BODY.as_bytes())
        };
        verify(&bytes).expect("valid");
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(is_no_match(&verify(&bytes)), "{bit}");
        }
        for length in 0..bytes.len() {
            assert!(is_no_match(&verify(&bytes[..length])), "{length}");
        }
        assert!(is_no_match(&verify(&[&bytes[..], &[0]].concat())));
    }
}

#[test]
fn other_keys_are_rejected() {
    for secret in both_kinds() {
        let headers = signed(&[&secret], NOW, BODY.as_bytes());
        for other in both_kinds() {
            assert!(is_no_match(&verify(&other, &headers, BODY.as_bytes())));
        }
        let nobody = Verifier::new(Vec::<VerifyKey>::new());
        assert!(is_no_match(&nobody.verify_at(
            at(NOW),
            &headers,
            BODY.as_bytes()
        )));
    }
}

#[test]
fn version_of_a_signature_must_fit_the_key() {
    let [shared, private] = both_kinds();
    let verifier = Verifier::new([shared.clone(), private.clone()]);
    for (secret, own, other) in [(&shared, "v1,", "v1a,"), (&private, "v1a,", "v1,")] {
        let signature = secret.sign(ID, NOW, BODY.as_bytes());
        let swapped = signature.replace(own, other);
        for (signature, is_valid) in [(signature, true), (swapped, false)] {
            let headers = fields(ID, &NOW.to_string(), &signature);
            let result = verifier.verify_at(at(NOW), &headers, BODY.as_bytes());
            assert_eq!(result.is_ok(), is_valid, "{signature}");
        }
    }
}

#[test]
fn public_key_does_not_pass_for_a_shared_secret() {
    // An attacker knows the public key, and signs with it as if it were a secret.
    let private = Secret::generate_ed25519();
    let public = private.public_key().expect("a private key").to_string();
    let forged: Secret = public.replace("whpk_", "whsec_").parse().expect("32 bytes");
    let headers = signed(&[&forged], NOW, BODY.as_bytes());
    assert!(is_no_match(&verify(&private, &headers, BODY.as_bytes())));
}

#[test]
fn key_can_be_replaced_without_a_gap() {
    let (old, new) = (Secret::generate(), Secret::generate_ed25519());
    let both = signed(&[&new, &old], NOW, BODY.as_bytes());
    for receiver in [&old, &new] {
        verify(receiver, &both, BODY.as_bytes()).expect("signed by both");
    }
    let receiver = Verifier::new([old.clone(), new.clone()]);
    for sender in [&old, &new] {
        let headers = signed(&[sender], NOW, BODY.as_bytes());
        let event = receiver.verify_at(at(NOW), &headers, BODY.as_bytes());
        event.expect("trusts both");
    }
}

#[test]
fn unknown_and_malformed_signatures_are_skipped() {
    let secret = Secret::generate();
    let valid = secret.sign(ID, NOW, BODY.as_bytes());
    let base64 = &valid["v1,".len()..];
    for noise in [
        "v2,AAAA",
        "v1,",
        "v1,?",
        "v1",
        "",
        ",",
        "V1,AAAA",
        "v1,AAAA",
        "v1a,AAAA",
        &format!("v2,{base64}"),
        base64,
    ] {
        let only = fields(ID, &NOW.to_string(), noise);
        assert!(
            is_no_match(&verify(&secret, &only, BODY.as_bytes())),
            "{noise}"
        );
        for around in [format!("{noise} {valid}"), format!("{valid} {noise}")] {
            let headers = fields(ID, &NOW.to_string(), &around);
            verify(&secret, &headers, BODY.as_bytes()).expect(noise);
        }
    }
}

#[test]
fn number_of_signatures_is_limited() {
    let secret = Secret::generate();
    let valid = secret.sign(ID, NOW, BODY.as_bytes());
    let with = |before: &str, number: usize| {
        let signatures = format!("{}{valid}", before.repeat(number));
        let headers = fields(ID, &NOW.to_string(), &signatures);
        verify(&secret, &headers, BODY.as_bytes())
    };
    with("v1,AAAA ", 15).expect("the sixteenth");
    let result = with("v1,AAAA ", 16);
    assert!(
        matches!(result, Err(VerifyError::TooManySignatures)),
        "{result:?}"
    );
    // Those that are skipped cost nothing.
    with("v2,AAAA ", 100).expect("skipped");
}

#[test]
fn missing_and_repeated_fields_are_named() {
    let secret = Secret::generate();
    let headers = signed(&[&secret], NOW, BODY.as_bytes());
    for name in FIELDS {
        let mut without = headers.clone();
        without.remove(name);
        let error = verify(&secret, &without, BODY.as_bytes()).expect_err(name);
        assert!(matches!(&error, VerifyError::MissingHeader(missing) if missing == name));
        assert_eq!(error.to_string(), format!("missing header field {name}"));
        let mut twice = headers.clone();
        twice.append(HeaderName::from_static(name), headers[name].clone());
        let error = verify(&secret, &twice, BODY.as_bytes()).expect_err(name);
        assert!(matches!(&error, VerifyError::RepeatedHeader(repeated) if repeated == name));
        assert_eq!(error.to_string(), format!("repeated header field {name}"));
    }
}

#[test]
fn invalid_fields_are_named() {
    let secret = Secret::generate();
    let headers = signed(&[&secret], NOW, BODY.as_bytes());
    for (name, values) in [
        ("webhook-id", &["", "a.b", "é"][..]),
        (
            "webhook-timestamp",
            &[
                "",
                "x",
                "-1",
                "+1",
                " 1",
                "1.0",
                "0x1",
                "1e9",
                "99999999999999999999",
                "１",
            ],
        ),
        ("webhook-signature", &["é"]),
    ] {
        for value in values {
            let mut headers = headers.clone();
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.insert(name, value);
            let error = verify(&secret, &headers, BODY.as_bytes()).expect_err(name);
            assert!(
                matches!(&error, VerifyError::InvalidHeader(invalid) if invalid == name),
                "{error}"
            );
            assert_eq!(error.to_string(), format!("invalid header field {name}"));
        }
    }
}

#[test]
fn clocks_may_differ_by_five_minutes() {
    for secret in both_kinds() {
        let headers = signed(&[&secret], NOW, BODY.as_bytes());
        let verifier = Verifier::new([secret]);
        let verify = |now| verifier.verify_at(at(now), &headers, BODY.as_bytes());
        for now in [NOW - 300, NOW - 1, NOW, NOW + 1, NOW + 300] {
            verify(now).expect("within the tolerance");
        }
        for now in [NOW + 301, NOW + 1_000_000, u64::from(u32::MAX)] {
            let result = verify(now);
            assert!(matches!(result, Err(VerifyError::TooOld)), "{result:?}");
        }
        for now in [NOW - 301, 0] {
            let result = verify(now);
            assert!(matches!(result, Err(VerifyError::TooNew)), "{result:?}");
        }
    }
}

#[test]
fn tolerance_can_be_set() {
    let secret = Secret::generate();
    let headers = signed(&[&secret], NOW, BODY.as_bytes());
    for (seconds, accepted, rejected) in [(0, 0, 1), (60, 60, 61), (3600, 3600, 3601)] {
        let verifier = Verifier::new([secret.clone()]).tolerance(Duration::from_secs(seconds));
        let verify = |now| verifier.verify_at(at(now), &headers, BODY.as_bytes());
        for now in [NOW - accepted, NOW + accepted] {
            verify(now).expect("within the tolerance");
        }
        assert!(matches!(verify(NOW + rejected), Err(VerifyError::TooOld)));
        assert!(matches!(verify(NOW - rejected), Err(VerifyError::TooNew)));
    }
    // The largest numbers do not overflow.
    let verifier = Verifier::new([secret]).tolerance(Duration::MAX);
    let headers = fields(ID, &u64::MAX.to_string(), "v1,AAAA");
    let result = verifier.verify_at(at(0), &headers, b"");
    assert!(is_no_match(&result), "{result:?}");
}

#[test]
fn signed_body_must_be_an_event() {
    for body in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"type":"job.failed","timestamp":"2026-11-23T13:41:31.300Z"}"#,
        r#"{"type":"job.failed","timestamp":"2026-11-23T13:41:31.300Z","data":1}"#,
        r#"{"type":1,"timestamp":"2026-11-23T13:41:31.300Z","data":{}}"#,
        r#"{"timestamp":"2026-11-23T13:41:31.300Z","data":{}}"#,
        r#"{"type":"job.failed","data":{}}"#,
    ] {
        let secret = Secret::generate();
        let headers = signed(&[&secret], NOW, body.as_bytes());
        let error = verify(&secret, &headers, body.as_bytes()).expect_err(body);
        assert!(matches!(error, VerifyError::InvalidBody(_)), "{error}");
        assert!(error.source().is_some());
        // An unsigned body is not parsed.
        let result = verify(&Secret::generate(), &headers, body.as_bytes());
        assert!(is_no_match(&result), "{result:?}");
    }
}

proptest! {
    #[test]
    fn no_request_is_accepted_without_a_key(
        id in "[a-z.]{0,3}",
        timestamp in prop_oneof!["[0-9+ ]{0,3}", Just(NOW.to_string())],
        signatures in vec("(v1|v1a|v2|)[,]?[A-Za-z0-9+/= ]{0,90}", 0..4),
        body: Vec<u8>,
    ) {
        let headers = fields(&id, &timestamp, &signatures.join(" "));
        for secret in both_kinds() {
            prop_assert!(verify(&secret, &headers, &body).is_err());
        }
    }
}
