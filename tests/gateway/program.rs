//! Starts the gateway and the examples, reads their output, and sends them signals.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
};

/// A running program. Dropping it kills the process.
pub(crate) struct Program {
    pub(crate) address: SocketAddr,
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    log: Lines<BufReader<ChildStderr>>,
}

impl Program {
    /// Starts the gateway in front of `upstream`, on a free port.
    pub(crate) async fn gateway(upstream: SocketAddr, flags: &[&str]) -> Self {
        let upstream = format!("http://{upstream}");
        let mut all = vec!["--upstream", &upstream, "--listen", "127.0.0.1:0"];
        all.extend(flags);
        Self::start("accepted-gateway", &all).await
    }

    /// Starts the gateway with an environment variable.
    #[cfg(all(feature = "jemalloc", target_os = "linux"))]
    pub(crate) async fn with_env(
        upstream: SocketAddr,
        (name, value): (&str, &str),
        flags: &[&str],
    ) -> Self {
        let upstream = format!("http://{upstream}");
        let mut gateway = command("accepted-gateway");
        gateway
            .env(name, value)
            .args(["--upstream", &upstream, "--listen", "127.0.0.1:0"])
            .args(flags);
        Self::run(gateway).listening().await
    }

    /// Returns the process's id.
    #[cfg(all(feature = "jemalloc", target_os = "linux"))]
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("still running")
    }

    /// Starts the gateway with at most this number of open file descriptors.
    pub(crate) async fn limited(upstream: SocketAddr, descriptors: u32, flags: &[&str]) -> Self {
        let upstream = format!("http://{upstream}");
        let gateway = command("accepted-gateway");
        let mut limited = Command::new("sh");
        limited
            .args([
                "-c",
                &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""),
            ])
            .arg(gateway.as_std().get_program())
            .args(["--upstream", &upstream, "--listen", "127.0.0.1:0"])
            .args(flags)
            .kill_on_drop(true);
        Self::run(limited).listening().await
    }

    /// Starts the gateway or an example, and waits until it prints its address.
    pub(crate) async fn start(name: &str, arguments: &[&str]) -> Self {
        Self::spawn(name, arguments).listening().await
    }

    /// Waits until the program prints its address.
    async fn listening(mut self) -> Self {
        let line = self.line().await.expect("a first line");
        let address = line
            .strip_prefix("Listening on http://")
            .expect("an address");
        let address = address.split([',', ' ']).next().expect("an address");
        self.address = address.parse().expect("an address");
        self
    }

    /// Starts a program that may not listen. Its address is unspecified.
    pub(crate) fn spawn(name: &str, arguments: &[&str]) -> Self {
        let mut command = command(name);
        command.args(arguments);
        Self::run(command)
    }

    fn run(mut command: Command) -> Self {
        let mut child = command
            .env("RUST_LOG", "info,tower_accepted::middleware=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let output = child.stdout.take().expect("piped");
        let log = child.stderr.take().expect("piped");
        Self {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            child,
            output: BufReader::new(output).lines(),
            log: BufReader::new(log).lines(),
        }
    }

    /// Returns the next line of standard output, or `None` at its end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        self.output.next_line().await.expect("UTF-8")
    }

    /// Waits until the program logs `text`.
    pub(crate) async fn logged(&mut self, text: &str) {
        while let Some(line) = self.log.next_line().await.expect("UTF-8") {
            if line.contains(text) {
                return;
            }
        }
        panic!("{text:?} was never logged");
    }

    /// Sends a signal, named as in `kill -s`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("still running").to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().await;
        assert!(status.expect("kill is installed").success());
    }

    /// Waits until the program exits by itself.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        self.child.wait().await.expect("a status")
    }
}

/// Returns the command that runs the gateway or an example.
pub(crate) fn command(name: &str) -> Command {
    let path = match option_env!("CARGO_BIN_EXE_accepted-gateway") {
        Some(gateway) if name == "accepted-gateway" => gateway.into(),
        _ => example(name),
    };
    let mut command = Command::new(path);
    command.kill_on_drop(true);
    command
}

/// Returns the path of an example. Cargo passes it to no test, but builds it next to their folder.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let path = profile.join("examples").join(name);
    assert!(
        path.exists(),
        "{} does not exist: run `cargo build --examples`",
        path.display()
    );
    path
}
