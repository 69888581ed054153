//! A headless Chromium of its own for each test.

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

/// How long a browser may take to get where it should. Nothing waits that long unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Browsers are large: few at a time.
static AT_A_TIME: Semaphore = Semaphore::const_new(2);

/// How a browser is to be set up.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) no_script: bool,
}

pub(crate) struct Browser {
    pub(crate) client: Client,
}

/// Runs a test in a browser, which is closed whatever comes of it; says so and does nothing where there
/// is none.
pub(crate) async fn browse(setup: Setup, test: impl AsyncFnOnce(&Browser)) {
    let _place = AT_A_TIME.acquire().await.expect("never closed");
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

/// Starts a driver on a free port; `None` where it is not installed.
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
            // What it prints further is read, or it would stop at a full pipe.
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

    /// Waits until what is seen at a selector is this.
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

    /// Waits until the address in the bar ends like this.
    pub(crate) async fn is_at(&self, end: &str) {
        self.until(&format!("an address that ends with {end}"), async || {
            let url = self.client.current_url().await.ok()?;
            url.path().ends_with(end).then_some(())
        })
        .await;
    }

    pub(crate) async fn script(&self, script: &str) -> Value {
        let value = self.client.execute(script, Vec::new()).await;
        value.expect("a script that runs")
    }

    /// Looks again and again, as a person would: of what goes on in a browser nobody tells.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let looking = async {
            loop {
                if let Some(seen) = look().await {
                    return seen;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(PATIENCE, looking).await {
            Ok(seen) => seen,
            Err(_) => panic!("never saw {what}"),
        }
    }

    /// Shows pages as on a screen so wide, in pixels of CSS, and dark or light.
    pub(crate) async fn screen(&self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
        let media = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            // A screenshot is of where the bar is, not of its way there.
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

    /// Keeps what is seen as `target/screenshots/{name}.png`.
    pub(crate) async fn screenshot(&self, name: &str) {
        let png = self.client.screenshot().await.expect("a screenshot");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let folder = target.expect("it is under target").join("screenshots");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(format!("{name}.png")), png).expect("a file");
    }
}

/// A command of Chromium's own protocol, for which WebDriver has none.
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
