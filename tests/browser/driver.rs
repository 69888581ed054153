//! Starts a headless Chromium for each test.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use fantoccini::{
    Client, ClientBuilder, Locator,
    wd::{Capabilities, WebDriverCompatibleCommand},
};
use futures_util::FutureExt;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::Semaphore,
    time::{sleep, timeout},
};

/// The maximum time until a condition holds. Only a failing test waits that long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Limits the number of browsers, which are large.
static BROWSERS: Semaphore = Semaphore::const_new(2);

/// The settings of a browser.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) no_script: bool,
}

pub(crate) struct Browser {
    pub(crate) client: Client,
}

/// Runs a test in a browser, and closes the browser even if the test panics.
///
/// Without chromedriver it prints that the test is skipped.
pub(crate) async fn browse(setup: Setup, test: impl AsyncFnOnce(&Browser)) {
    let _permit = BROWSERS.acquire().await.expect("never closed");
    let Some((mut driver, port)) = start_driver().await else {
        println!(
            "skipped: no chromedriver. `apt-get install chromium chromium-driver`, or run `./test`"
        );
        return;
    };
    let profile = fresh_profile();
    let client = ClientBuilder::new(HttpConnector::new())
        .capabilities(capabilities(&setup, &profile))
        .connect(&format!("http://127.0.0.1:{port}"))
        .await
        .expect("a browser");
    let browser = Browser { client };
    let tested = AssertUnwindSafe(test(&browser)).catch_unwind().await;
    if tested.is_err() {
        eprintln!("at {:?}", browser.client.current_url().await);
        browser.screenshot("failed").await;
    }
    let closed = browser.client.close().await;
    driver.kill().await.expect("the driver was running");
    let _ = std::fs::remove_dir_all(profile);
    if let Err(panic) = tested {
        resume_unwind(panic);
    }
    closed.expect("the browser closes");
}

/// Starts a driver on a free port. Returns `None` if it is not installed.
async fn start_driver() -> Option<(Child, u16)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut output = BufReader::new(driver.stdout.take().expect("piped")).lines();
    while let Some(line) = output.next_line().await.expect("UTF-8") {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            let port = port.trim_end_matches('.').parse().expect("a port");
            // Reads the rest of its output, because a full pipe would block it.
            tokio::spawn(async move { while let Ok(Some(_)) = output.next_line().await {} });
            return Some((driver, port));
        }
    }
    panic!("chromedriver ended without a port");
}

fn fresh_profile() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("chromium-{}-{number}", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn capabilities(setup: &Setup, profile: &Path) -> Capabilities {
    let script = if setup.no_script { 2 } else { 1 };
    let options = json!({
        "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--window-size=800,600",
            format!("--user-data-dir={}", profile.display()),
        ],
        "prefs": { "profile.managed_default_content_settings.javascript": script },
    });
    let mut capabilities = Capabilities::new();
    capabilities.insert("goog:chromeOptions".to_owned(), options);
    capabilities
}

impl Browser {
    pub(crate) async fn goto(&self, url: &str) {
        self.client.goto(url).await.expect("a page");
    }

    pub(crate) async fn click(&self, css: &str) {
        let element = self.client.find(Locator::Css(css)).await;
        element.expect(css).click().await.expect(css);
    }

    /// Waits until the element at a selector has this text.
    pub(crate) async fn shows(&self, css: &str, text: &str) {
        self.until(&format!("{text:?} at {css}"), async || {
            let element = self.client.find(Locator::Css(css)).await.ok()?;
            (element.text().await.ok()?.trim() == text).then_some(())
        })
        .await;
    }

    pub(crate) async fn attribute_is(&self, css: &str, name: &str, value: &str) {
        self.until(&format!("{name}={value:?} at {css}"), async || {
            let element = self.client.find(Locator::Css(css)).await.ok()?;
            (element.attr(name).await.ok()??.as_str() == value).then_some(())
        })
        .await;
    }

    /// Waits until the path of the current URL ends with `end`.
    pub(crate) async fn is_at(&self, end: &str) {
        self.until(&format!("a URL whose path ends with {end}"), async || {
            let url = self.client.current_url().await.ok()?;
            url.path().ends_with(end).then_some(())
        })
        .await;
    }

    pub(crate) async fn script(&self, script: &str) -> Value {
        let value = self.client.execute(script, Vec::new()).await;
        value.expect("a script that runs")
    }

    /// Polls `find` until it returns a value: WebDriver does not notify of changes.
    pub(crate) async fn until<T>(&self, what: &str, mut find: impl AsyncFnMut() -> Option<T>) -> T {
        let polling = async {
            loop {
                if let Some(found) = find().await {
                    return found;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(TIMEOUT, polling).await {
            Ok(found) => found,
            Err(_) => panic!("timed out waiting for {what}"),
        }
    }

    /// Emulates a screen of this size in CSS pixels, with a `light` or `dark` color scheme.
    pub(crate) async fn screen(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
        let media = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            // Keeps the animation of the progress bar out of screenshots.
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ] });
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    async fn devtools(&self, command: &'static str, parameters: Value) {
        let command = DevTools {
            command,
            parameters,
        };
        self.client.issue_cmd(command).await.expect("a setting");
    }

    /// Saves a screenshot as `target/screenshots/{name}.png`.
    pub(crate) async fn screenshot(&self, name: &str) {
        let png = self.client.screenshot().await.expect("a screenshot");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let folder = target.expect("a parent folder").join("screenshots");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(format!("{name}.png")), png).expect("a file");
    }
}

/// A command of the Chrome DevTools Protocol, for settings that WebDriver lacks.
#[derive(Debug)]
struct DevTools {
    command: &'static str,
    parameters: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!(
            "session/{}/goog/cdp/execute",
            session.unwrap_or_default()
        ))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        let body = json!({ "cmd": self.command, "params": self.parameters });
        (http::Method::POST, Some(body.to_string()))
    }
}
