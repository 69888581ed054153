//! Keys: how they parse, and what they show.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tower_accepted::webhook::{ParseKeyError, PublicKey, Secret, VerifyKey};

fn text(prefix: &str, bytes: usize) -> String {
    format!("{prefix}{}", STANDARD.encode(vec![7; bytes]))
}

fn secret_error(text: &str) -> ParseKeyError {
    text.parse::<Secret>().expect_err("no secret")
}

#[test]
fn shared_secret_has_24_to_64_bytes() {
    for bytes in [24, 25, 32, 63, 64] {
        let text = text("whsec_", bytes);
        let secret: Secret = text.parse().expect("a secret");
        assert_eq!(secret.expose(), text);
        assert_eq!(secret.public_key(), None);
    }
    for bytes in [0, 1, 23, 65, 1000] {
        let error = secret_error(&text("whsec_", bytes));
        assert_eq!(error, ParseKeyError::SecretLength(bytes));
    }
}

#[test]
fn private_key_has_32_or_64_bytes() {
    let seed = text("whsk_", 32);
    let from_seed: Secret = seed.parse().expect("a seed");
    let halves = from_seed.expose();
    assert_eq!(halves.len(), "whsk_".len() + 88);
    let from_halves: Secret = halves.parse().expect("a key pair");
    assert_eq!(from_halves.expose(), halves);
    assert_eq!(from_halves.public_key(), from_seed.public_key());
    for bytes in [0, 24, 31, 33, 63, 65] {
        let error = secret_error(&text("whsk_", bytes));
        assert_eq!(error, ParseKeyError::PrivateKeyLength(bytes));
    }
}

#[test]
fn halves_of_a_private_key_belong_together() {
    let error = secret_error(&text("whsk_", 64));
    assert_eq!(error, ParseKeyError::MismatchedHalves);
}

#[test]
fn public_key_has_32_bytes() {
    let text_of_32 = text("whpk_", 32);
    let key: PublicKey = text_of_32.parse().expect("a public key");
    assert_eq!(key.to_string(), text_of_32);
    for bytes in [0, 31, 33, 64] {
        let error = text("whpk_", bytes).parse::<PublicKey>();
        assert_eq!(error, Err(ParseKeyError::PublicKeyLength(bytes)));
    }
}

#[test]
fn prefix_says_what_a_key_is() {
    let is_unknown = |error| matches!(error, ParseKeyError::UnknownPrefix(_));
    let bare = text("", 32);
    for text in ["", "whsec", &bare, &text("whpk_", 32), &text("WHSEC_", 32)] {
        assert!(is_unknown(secret_error(text)), "{text}");
    }
    for prefix in ["whsec_", "whsk_", ""] {
        let error = text(prefix, 32).parse::<PublicKey>().expect_err(prefix);
        assert!(is_unknown(error), "{prefix}");
    }
    // A receiver has no use for a private key.
    let error = text("whsk_", 32).parse::<VerifyKey>().expect_err("whsk_");
    assert_eq!(
        error.to_string(),
        "unknown prefix: expected whsec_ or whpk_"
    );
    for prefix in ["whsec_", "whpk_"] {
        text(prefix, 32).parse::<VerifyKey>().expect(prefix);
    }
}

#[test]
fn padding_of_a_key_is_optional() {
    let padded = text("whsec_", 32);
    let secret: Secret = padded.trim_end_matches('=').parse().expect("a secret");
    assert_eq!(secret.expose(), padded);
}

#[test]
fn malformed_base64_is_an_error() {
    for text in [
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La aSw",
        "whsk_-_",
        "whsec_é",
    ] {
        assert_eq!(secret_error(text), ParseKeyError::InvalidBase64, "{text}");
    }
}

#[test]
fn generated_keys_differ_and_can_be_kept() {
    for generate in [Secret::generate, Secret::generate_ed25519] {
        let (one, other) = (generate().expose(), generate().expose());
        assert_ne!(one, other);
        let parsed: Secret = one.parse().expect("a secret");
        assert_eq!(parsed.expose(), one);
    }
    let is_shared = |secret: Secret| secret.expose().starts_with("whsec_");
    assert!(is_shared(Secret::generate()) && !is_shared(Secret::generate_ed25519()));
}

#[test]
fn secret_is_neither_debugged_nor_in_an_error() {
    for secret in [Secret::generate(), Secret::generate_ed25519()] {
        let text = secret.expose();
        let (prefix, base64) = text.split_once('_').expect("a prefix");
        let key = VerifyKey::from(secret.clone());
        let shown = format!("{secret:?} {secret:#?} {key:?}");
        // The public key is the second half of a private one.
        for at in 0..32 {
            assert!(!shown.contains(&base64[at..at + 8]), "{shown}");
        }
        let cut = format!("{prefix}_{}", &base64[..20]);
        let error = secret_error(&cut);
        assert!(!format!("{error} {error:?}").contains(&base64[..8]));
    }
}
