//! A command that sends a request, follows a 202 to its end, and prints the final response.
//!
//! ```text
//! cargo run --features follow --example follow -- POST http://127.0.0.1:3000/reports -d pages=3
//! ```
//!
//! It streams the response body to standard output and shows the job's progress on standard error:
//! a bar on a terminal, otherwise a line for each change. The exit codes are:
//!
//! - 0: the status is below 400.
//! - 1: there is no response.
//! - 2: the arguments are invalid.
//! - 3: the 202 could not be followed, so the outcome is unknown.
//! - 4: the status is 4xx.
//! - 5: the status is 5xx.

use std::{
    error::Error,
    fmt::Write as _,
    io::{self, IsTerminal, Read, Write},
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use clap::Parser;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{select, sync::mpsc};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_accepted::follow::{FollowAcceptedLayer, NotFollowed, Update};

/// Sends a request, follows a 202 to its end, and prints the final response
#[derive(Debug, Parser)]
#[command(name = "follow")]
pub(crate) struct Arguments {
    /// The request's method, such as GET or POST
    method: Method,
    /// The request's http:// URL
    url: Uri,
    /// The request's body: TEXT, the content of @FILE, or standard input for @-
    #[arg(short, long, value_name = "TEXT|@FILE")]
    data: Option<String>,
    /// A header of the request; repeatable
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The maximum time to wait for the job, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), BoxError> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    Ok((name.trim().parse()?, value.trim().parse()?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let progress = if io::stderr().is_terminal() {
        Progress::bar()
    } else {
        Progress::lines(io::stderr())
    };
    match run(arguments, &mut io::stdout().lock(), progress).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("follow: {}", with_sources(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Sends the request, writes the response body to `output`, and returns the exit code.
pub(crate) async fn run<W: Write>(
    arguments: Arguments,
    output: &mut impl Write,
    mut progress: Progress<W>,
) -> Result<u8, BoxError> {
    let (sender, mut updates) = mpsc::unbounded_channel();
    let layer = FollowAcceptedLayer::new()
        .timeout(Duration::from_secs(arguments.timeout))
        .on_update(move |update| {
            let _ = sender.send(update);
        });
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let client = ServiceBuilder::new().layer(layer).service(client);
    let mut response = Box::pin(client.oneshot(arguments.request()?));
    let response = loop {
        select! {
            biased;
            Some(update) = updates.recv() => progress.show(&update)?,
            response = &mut response => break response,
        }
    };
    progress.end();
    let response = response?;
    let code = match response.status().as_u16() {
        _ if response.extensions().get::<NotFollowed>().is_some() => 3,
        0..400 => 0,
        400..500 => 4,
        500.. => 5,
    };
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            output.write_all(&data)?;
        }
    }
    output.flush()?;
    Ok(code)
}

impl Arguments {
    fn request(self) -> Result<Request<Full<Bytes>>, BoxError> {
        let body = match self
            .data
            .as_deref()
            .map(|data| (data.strip_prefix('@'), data))
        {
            None => Vec::new(),
            Some((None, text)) => text.into(),
            Some((Some("-"), _)) => {
                let mut input = Vec::new();
                io::stdin().read_to_end(&mut input)?;
                input
            }
            Some((Some(file), _)) => {
                std::fs::read(file).map_err(|error| format!("{file}: {error}"))?
            }
        };
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.url;
        request.headers_mut().extend(self.headers);
        Ok(request)
    }
}

/// Shows the progress of a job.
pub(crate) enum Progress<W> {
    Bar(ProgressBar),
    Lines { to: W, last: String },
}

impl Progress<io::Stderr> {
    fn bar() -> Self {
        let bar = ProgressBar::new(100);
        let style = ProgressStyle::with_template("{elapsed_precise} {bar:40} {pos:>3} % {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self::Bar(bar)
    }
}

impl<W: Write> Progress<W> {
    pub(crate) fn lines(to: W) -> Self {
        let last = String::new();
        Self::Lines { to, last }
    }

    fn show(&mut self, update: &Update) -> io::Result<()> {
        let status = update
            .document
            .as_ref()
            .and_then(|document| document.status());
        let parts = [status, update.message.as_deref()];
        let parts: Vec<_> = parts.into_iter().flatten().map(printable).collect();
        let message = parts.join(": ");
        match self {
            Self::Bar(bar) => {
                bar.enable_steady_tick(Duration::from_millis(200));
                if let Some(percent) = update.percent {
                    bar.set_position(percent as u64);
                }
                bar.set_message(message);
            }
            Self::Lines { to, last } => {
                let percent = update.percent.map(|percent| format!("{percent:.0} %"));
                let parts = [percent, Some(message)];
                let parts: Vec<_> = parts
                    .into_iter()
                    .flatten()
                    .filter(|part| !part.is_empty())
                    .collect();
                let line = parts.join(" ");
                if !line.is_empty() && line != *last {
                    writeln!(to, "{line}")?;
                    *last = line;
                }
            }
        }
        Ok(())
    }

    fn end(self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Removes control characters, so that a server cannot control the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .collect()
}

fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}
