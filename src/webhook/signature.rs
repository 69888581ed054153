//! The header field with a webhook's signatures.

use http::HeaderValue;

use super::{scheme::signed_content, secret::Secret};

/// Returns the value of `webhook-signature`: one signature for each secret.
///
/// While a secret is replaced, the new one and the old one sign. The receiver trusts either.
pub(crate) fn sign(secrets: &[Secret], id: &str, timestamp: u64, body: &[u8]) -> HeaderValue {
    debug_assert!(!id.contains('.'), "a full stop ends the id");
    let content = signed_content(id, &timestamp.to_string(), body);
    let signatures = secrets.iter().map(|secret| secret.sign_content(&content));
    let signatures: Vec<_> = signatures.collect();
    let value = HeaderValue::try_from(signatures.join(" "));
    let mut value = value.expect("a signature has only visible ASCII characters");
    // Keeps it out of logs, and out of the dynamic tables of HTTP/2.
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The key pair whose signature is the example of the specification.
    const PRIVATE: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dR\
                           qSKJp4AJ6p9lMicMFs6Kvg==";

    fn sign_with(secrets: &[&str]) -> String {
        let secrets: Vec<_> = secrets
            .iter()
            .map(|secret| secret.parse().expect("a secret"))
            .collect();
        let body = br#"{"test": 2432232314}"#;
        let value = sign(
            &secrets,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            body,
        );
        assert!(value.is_sensitive());
        value.to_str().expect("ASCII").to_owned()
    }

    #[test]
    fn field_has_one_signature_for_each_secret() {
        // Of the official libraries.
        let shared = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        // Of the specification.
        let private = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXw\
                       VLPo3mNl8EM+m7TBAg==";
        assert_eq!(sign_with(&[SHARED]), shared);
        assert_eq!(sign_with(&[PRIVATE]), private);
        assert_eq!(sign_with(&[SHARED, PRIVATE]), format!("{shared} {private}"));
        assert_eq!(sign_with(&[]), "");
    }
}
