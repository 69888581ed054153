//! Node's own ed25519 verifies `v1a` signatures of this crate, and the other way round.
//!
//! No official library knows that version yet.

use std::process::Command;

use serde_json::{Value, json};
use tower_accepted::webhook::{PublicKey, Secret, Verifier, VerifyError, VerifyKey};

use crate::{
    scripts::run,
    support::{BODY, ID, NOW, at, fields},
};

/// Verifies a signature with the public key, signs with the private key, and signs with a new key.
///
/// Node reads keys in DER. The start of a key is the same for each ed25519 key (RFC 8410).
const NODE: &str = r#"
import crypto from "node:crypto";
import { readFileSync } from "node:fs";

const PUBLIC = Buffer.from("302a300506032b6570032100", "hex");
const PRIVATE = Buffer.from("302e020100300506032b657004220420", "hex");

const { publicKey, privateKey, id, timestamp, body, signatures } = JSON.parse(readFileSync(0));
const bytes = (text) => Buffer.from(text.split("_")[1], "base64");
const der = (start, key) => Buffer.concat([start, key]);
const content = Buffer.from(`${id}.${timestamp}.${body}`);

const trusted = crypto.createPublicKey({
  key: der(PUBLIC, bytes(publicKey)), format: "der", type: "spki",
});
const secret = crypto.createPrivateKey({
  key: der(PRIVATE, bytes(privateKey).subarray(0, 32)), format: "der", type: "pkcs8",
});
const own = crypto.generateKeyPairSync("ed25519");

const decode = (signature) => Buffer.from(signature.slice("v1a,".length), "base64");
const verify = (signature) => crypto.verify(null, content, trusted, decode(signature));
const sign = (key) => "v1a," + crypto.sign(null, content, key).toString("base64");
const exported = own.publicKey.export({ format: "der", type: "spki" }).subarray(-32);
console.log(JSON.stringify({
  verified: signatures.map(verify),
  signature: sign(secret),
  ownKey: "whpk_" + exported.toString("base64"),
  ownSignature: sign(own.privateKey),
}));
"#;

fn run_node(secret: &Secret, body: &str, signatures: &[String]) -> Option<Value> {
    let public = secret.public_key().expect("a private key");
    let input = json!({
        "publicKey": public.to_string(),
        "privateKey": secret.expose(),
        "id": ID,
        "timestamp": NOW,
        "body": body,
        "signatures": signatures,
    });
    let mut node = Command::new("node");
    run(node.args(["--input-type=module", "-e", NODE]), &input)
}

#[test]
fn node_verifies_and_signs_with_key_pairs() {
    let letters = BODY.replace(
        "succeeded\"}",
        "succeeded\",\"message\":\"für 20 € – 完了 ✅\"}",
    );
    for body in [BODY, &letters] {
        let secret = Secret::generate_ed25519();
        let valid = secret.sign(ID, NOW, body.as_bytes());
        let forged = Secret::generate_ed25519().sign(ID, NOW, body.as_bytes());
        let other = secret.sign(ID, NOW + 1, body.as_bytes());
        let Some(output) = run_node(&secret, body, &[valid.clone(), forged, other]) else {
            return;
        };
        assert_eq!(output["verified"], json!([true, false, false]));
        // Signatures of ed25519 are deterministic.
        assert_eq!(output["signature"], valid);

        let key = output["ownKey"].as_str().expect("a key");
        let key: PublicKey = key.parse().expect("a public key");
        let signature = output["ownSignature"].as_str().expect("a signature");
        let headers = fields(ID, &NOW.to_string(), signature);
        let verify =
            |key: VerifyKey| Verifier::new([key]).verify_at(at(NOW), &headers, body.as_bytes());
        verify(key.into()).expect("signed by Node");
        let result = verify(secret.into());
        assert!(matches!(result, Err(VerifyError::NoMatch)), "{result:?}");
    }
}
