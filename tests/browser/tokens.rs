//! The example `tokens`, whose page survives cuts of its connection.
//!
//! `ACCEPTED_QUIET_SECS` sets the time in which no request may come after the end (default: 1.5).

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::{
    driver::{Setup, browse},
    program::Program,
    proxy::Proxy,
};

/// The lengths at which the proxy cuts the first two responses.
const CUTS: [usize; 2] = [1500, 2200];

/// Three times the delay after which the browser would connect again: the example sets 500 ms.
const QUIET: Duration = Duration::from_millis(1500);

/// Opens a second stream of the same job, and leaves its end to the browser.
const NEVER_CLOSED: &str = "
    window.received = [];
    window.events = new EventSource(arguments[0]);
    events.onmessage = (event) => received.push(event.data);
";

#[tokio::test]
async fn cut_page_shows_each_token_once() {
    browse(Setup::default(), async |browser| {
        let arguments = ["127.0.0.1:0", "--interval-ms", "20", "--tokens", "100"];
        let server = Program::start("tokens", &arguments).await;
        let proxy = Proxy::start(server.address, &CUTS).await;
        browser.goto(&format!("http://{}/", proxy.address)).await;
        browser.click("button").await;
        browser.shows("#state", "The model is writing.").await;
        browser.screenshot("tokens").await;
        browser.shows("#state", "The answer is complete.").await;
        assert_eq!((proxy.cuts_left(), proxy.streams().len()), (0, 3));
        let target = proxy.streams()[0].split(' ').nth(1).unwrap().to_owned();
        let shown = browser.script("return document.getElementById('answer').textContent");
        let shown = shown.await;

        // The page closed its stream at the last event. This one ends with a 204 instead.
        browser
            .client
            .execute(NEVER_CLOSED, vec![target.into()])
            .await
            .unwrap();
        browser
            .until("the 204", async || {
                let state = browser.script("return events.readyState").await;
                (state == 2).then_some(())
            })
            .await;
        let received = browser.script("return received").await;
        let received: Vec<String> = serde_json::from_value(received).unwrap();
        let (last, tokens) = received.split_last().unwrap();
        assert_eq!((last.as_str(), tokens.len()), ("[DONE]", 100));
        let token = |data: &String| {
            let chunk: Value = serde_json::from_str(data).unwrap();
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(shown, tokens.iter().map(token).collect::<String>());
        assert_eq!(proxy.streams().len(), 5, "{:#?}", proxy.streams());

        // A request that is not sent can only be waited for.
        let requests = proxy.requests().len();
        sleep(quiet()).await;
        assert_eq!(proxy.requests().len(), requests, "{:#?}", proxy.requests());
    })
    .await;
}

fn quiet() -> Duration {
    match std::env::var("ACCEPTED_QUIET_SECS") {
        Ok(seconds) => Duration::from_secs(seconds.parse().unwrap()),
        Err(_) => QUIET,
    }
}
