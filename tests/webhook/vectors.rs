//! Signatures that the specification and other implementations have published.

use tower_accepted::webhook::{PublicKey, Secret, Verifier, VerifyError, VerifyKey};

use crate::support::{at, fields};

struct Vector {
    secret: &'static str,
    id: &'static str,
    timestamp: u64,
    body: &'static str,
    signature: &'static str,
}

/// Of the official libraries' tests. The specification leaves out the secret of its example.
const V1: [Vector; 2] = [
    Vector {
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp: 1_614_265_330,
        body: r#"{"test": 2432232314}"#,
        signature: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    },
    Vector {
        secret: "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        id: "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        timestamp: 1_649_367_553,
        body: r#"{"email":"test@example.com","username":"test_user"}"#,
        signature: "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    },
];

/// The signature is the example of the specification. Its key pair is known from the server of the
/// specification's authors.
const V1A: Vector = Vector {
    secret: "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicM\
             Fs6Kvg==",
    id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
    timestamp: 1_614_265_330,
    body: r#"{"test": 2432232314}"#,
    signature: "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8\
                EM+m7TBAg==",
};

const V1A_PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

/// Checks that the secret makes the signature, and that the key accepts it.
fn check(vector: &Vector, key: VerifyKey) {
    let secret: Secret = vector.secret.parse().expect("a secret");
    let body = vector.body.as_bytes();
    let signature = secret.sign(vector.id, vector.timestamp, body);
    assert_eq!(signature, vector.signature);
    let timestamp = vector.timestamp.to_string();
    let headers = fields(vector.id, &timestamp, vector.signature);
    let verifier = Verifier::new([key]);
    let verified = verifier.verify_at(at(vector.timestamp), &headers, body);
    // The signature is valid, but the body is not an event of a job.
    assert!(
        matches!(verified, Err(VerifyError::InvalidBody(_))),
        "{verified:?}"
    );
}

#[test]
fn published_v1_signatures_are_made_and_accepted() {
    for vector in &V1 {
        check(vector, vector.secret.parse().expect("a secret"));
    }
}

#[test]
fn specified_v1a_signature_is_made_and_accepted() {
    let public: PublicKey = V1A_PUBLIC.parse().expect("a public key");
    let secret: Secret = V1A.secret.parse().expect("a private key");
    assert_eq!(secret.public_key(), Some(public));
    check(&V1A, public.into());
    check(&V1A, secret.into());
}
