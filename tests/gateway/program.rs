use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
};

/// A running example; it ends with the test.
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
        Self::start("gateway", &all).await
    }

    pub(crate) async fn start(example: &str, arguments: &[&str]) -> Self {
        let mut child = command(example)
            .args(arguments)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let output = child.stdout.take().expect("piped");
        let log = child.stderr.take().expect("piped");
        let mut program = Self {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            child,
            output: BufReader::new(output).lines(),
            log: BufReader::new(log).lines(),
        };
        let line = program.line().await.expect("a first line");
        let address = line
            .strip_prefix("Listening on http://")
            .expect("an address");
        let address = address.split([',', ' ']).next().expect("something");
        program.address = address.parse().expect("an address");
        program
    }

    /// The next line of what the program prints.
    pub(crate) async fn line(&mut self) -> Option<String> {
        self.output.next_line().await.expect("UTF-8")
    }

    /// Waits until the program has logged something.
    pub(crate) async fn logged(&mut self, text: &str) {
        while let Some(line) = self.log.next_line().await.expect("UTF-8") {
            if line.contains(text) {
                return;
            }
        }
        panic!("{text:?} was never logged");
    }

    /// Sends a signal, by its name as `kill` has it.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("still running").to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().await;
        assert!(status.expect("kill is there").success());
    }

    /// Waits until the program has ended of itself.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        self.child.wait().await.expect("a status")
    }
}

/// An example's command line, to be run to its end.
pub(crate) fn command(example: &str) -> Command {
    let mut command = Command::new(path(example));
    command.kill_on_drop(true);
    command
}

/// Cargo tells tests where binaries are, and not examples: they are beside the tests' own folder.
fn path(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let name = format!("{example}{}", std::env::consts::EXE_SUFFIX);
    let path = profile.join("examples").join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --examples`",
        path.display()
    );
    path
}
