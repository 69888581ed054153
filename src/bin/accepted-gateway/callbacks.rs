//! The flags of callbacks: signed requests that notify a client of its job's end.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use tower::BoxError;
use tower_accepted::{
    JobsBuilder,
    webhook::{HostRule, Secret, Webhooks},
};

use crate::descriptors::DescriptorShares;

const CALLBACKS: &str = "Callbacks";

/// The receivers that clients may name, and the secrets that sign. By default there are none.
#[derive(Debug, Args)]
pub(crate) struct CallbackFlags {
    /// Let clients be notified of a job's end, at URLs of these hosts
    ///
    /// A client names its URL by `Prefer: respond-async, callback; url="…"`, or by X-Callback-Url
    /// (any other host: 400). It gets a signed POST (Standard Webhooks). It is retried for three
    /// days, until the response is a 2xx. A rule is HOST or *.DOMAIN, with :PORT unless it is
    /// 443. Internal addresses are refused. Callbacks take a quarter of the file descriptors for
    /// calls, at most 320.
    #[arg(
        long,
        value_name = "HOST,…",
        value_delimiter = ',',
        requires = "callback_secret_file",
        help_heading = CALLBACKS,
        verbatim_doc_comment
    )]
    callback_hosts: Vec<HostRule>,

    /// The file of the secrets that sign callbacks, one a line; # begins a comment
    ///
    /// A secret is whsec_ and 24 to 64 bytes in base64, which receivers share, or whsk_ and the 32
    /// bytes of an ed25519 key. GET /jobs/callbacks-key has the public keys. Each secret signs, so
    /// that receivers can change to a new one. The file is read at the start.
    #[arg(
        long,
        value_name = "PATH",
        requires = "callback_hosts",
        help_heading = CALLBACKS,
        verbatim_doc_comment
    )]
    callback_secret_file: Option<PathBuf>,

    /// Allow internal addresses for these hosts; they must match --callback-hosts too
    #[arg(
        long,
        value_name = "HOST,…",
        value_delimiter = ',',
        requires = "callback_hosts",
        help_heading = CALLBACKS
    )]
    callback_internal: Vec<HostRule>,

    /// Allow http and internal addresses for all of the hosts: for development only
    #[arg(long, requires = "callback_hosts", help_heading = CALLBACKS)]
    callback_insecure: bool,
}

impl CallbackFlags {
    /// Adds callbacks to a registry, and their share of the file descriptors, if clients may name
    /// receivers.
    ///
    /// # Errors
    ///
    /// Returns an error if the secrets cannot be read.
    pub(crate) fn add_to(
        &self,
        jobs: JobsBuilder,
        shares: DescriptorShares,
    ) -> Result<(JobsBuilder, DescriptorShares), BoxError> {
        let Some(file) = &self.callback_secret_file else {
            return Ok((jobs, shares));
        };
        let shares = shares.with_callbacks();
        let webhooks = self.webhooks(file, shares.callbacks)?;
        Ok((jobs.webhooks(webhooks), shares))
    }

    /// Returns the settings of callbacks that take at most this number of file descriptors.
    fn webhooks(&self, secrets: &Path, descriptors: usize) -> Result<Webhooks, String> {
        let hosts = || self.callback_hosts.iter().cloned();
        // For each four requests, the client may keep one idle connection.
        let mut webhooks = Webhooks::new()
            .max_connections(descriptors * 4 / 5)
            .prefer_callback(hosts())
            .x_callback_url(hosts())
            .allow_internal_hosts(self.callback_internal.iter().cloned());
        for secret in read_secrets(secrets)? {
            webhooks = webhooks.secret(secret);
        }
        if self.callback_insecure {
            webhooks = webhooks.insecure_for_development();
        }
        Ok(webhooks)
    }
}

/// Reads the secrets of a file. No error contains anything of the file.
fn read_secrets(file: &Path) -> Result<Vec<Secret>, String> {
    let name = file.display();
    let text = fs::read_to_string(file);
    let text = text.map_err(|error| format!("failed to read {name}: {error}"))?;
    let mut secrets = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let secret = line.parse();
        secrets.push(secret.map_err(|error| format!("{name}, line {number}: {error}"))?);
    }
    if secrets.is_empty() {
        return Err(format!("{name} has no secret"));
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    /// The flags of a gateway with these secrets.
    fn read(secrets: &[u8]) -> Result<Webhooks, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), secrets).expect("written");
        let path = file.path().to_str().expect("UTF-8");
        let flags = ["--callback-hosts", "a.example", "--callback-secret-file"];
        let flags = [&["accepted-gateway"], &flags[..], &[path]].concat();
        let callbacks = Cli::try_parse_from(flags).expect("valid").callbacks;
        let webhooks = callbacks.webhooks(file.path(), 10);
        webhooks.map_err(|error| error.replace(path, "FILE"))
    }

    #[test]
    fn file_has_a_secret_on_each_line() {
        let (new, old) = (Secret::generate(), Secret::generate_ed25519());
        let text = format!(
            "# the new one\r\n{}\r\n\n  # the old one\n  {} \n",
            new.expose(),
            old.expose()
        );
        let webhooks = format!("{:?}", read(text.as_bytes()).expect("valid"));
        let secrets = "secrets: [Secret(whsec_…), Secret(whsk_…)]";
        assert!(webhooks.contains(secrets), "{webhooks}");
    }

    #[test]
    fn error_names_the_line_and_not_the_secret() {
        for (text, error) in [
            ("", "FILE has no secret"),
            ("# none\n\n", "FILE has no secret"),
            (
                "#\nhunter2",
                "FILE, line 2: unknown prefix: expected whsec_ or whsk_",
            ),
            (
                "whsec_hunter2!",
                "FILE, line 1: invalid base64 after the prefix",
            ),
            (
                "whsec_aHVudGVyMg==",
                "FILE, line 1: the secret has 7 bytes: expected 24 to 64",
            ),
        ] {
            let read = read(text.as_bytes()).map(drop);
            assert_eq!(read, Err(error.to_owned()), "{text:?}");
        }
        let not_text = read(b"\xff").map(drop).expect_err("not UTF-8");
        assert!(not_text.starts_with("failed to read FILE: "), "{not_text}");
        let missing = read_secrets(Path::new("missing/secrets")).map(drop);
        let missing = missing.expect_err("no file");
        assert!(missing.starts_with("failed to read missing/secrets: "));
    }
}
