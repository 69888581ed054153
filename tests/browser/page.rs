//! The status page: progress, results, failures, cancellation, and use without scripts.

use std::path::Path;

use fantoccini::Locator;

use crate::{
    driver::{Browser, Setup, browse},
    site::Site,
};

const RESULT: &str =
    "<!doctype html><html lang=en><title>Report</title><h1>The report</h1><p>It took a while.";

/// Submits the form and waits for the status page.
async fn submit(browser: &Browser, site: &Site) {
    browser.goto(&site.url()).await;
    browser.click("button").await;
    browser.shows("h1", "In progress").await;
}

#[tokio::test]
async fn page_leads_from_the_form_to_the_result() {
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        submit(browser, &site).await;
        browser.script("window.mark = 'the same page'").await;
        browser.screenshot("without-progress").await;
        // The first estimate needs a second of run time.
        browser
            .until("an estimate", async || {
                site.report(0.1, "page 1 of 10");
                let left = browser.client.find(Locator::Css("#left-row")).await.ok()?;
                let text = left.text().await.ok()?;
                (text.starts_with("About") && text.ends_with("s left")).then_some(())
            })
            .await;
        browser.screenshot("estimated").await;
        let bar = "[role=progressbar]";
        site.report(0.4, "page 4 of 10");
        browser.attribute_is(bar, "aria-valuenow", "40").await;
        browser.shows("#message", "page 4 of 10").await;
        site.report(0.7, "page 7 of 10");
        browser.attribute_is(bar, "aria-valuenow", "70").await;
        assert_eq!(browser.script("return window.mark").await, "the same page");
        assert_eq!(browser.client.title().await.unwrap(), "70 % · In progress");
        for scheme in ["light", "dark"] {
            browser.screen(640, 360, scheme).await;
            browser.screenshot(&format!("running-{scheme}")).await;
        }
        site.answer(200, RESULT);
        browser.is_at("/result").await;
        browser.shows("h1", "The report").await;
        // A reload fetches the result and does not submit the form again.
        browser.client.refresh().await.unwrap();
        browser.shows("h1", "The report").await;
        assert_eq!(site.posts(), 1);
        // Back leads to the form, past the status page.
        browser.client.back().await.unwrap();
        browser.shows("button", "Send").await;
    })
    .await;
}

#[tokio::test]
async fn title_changes_on_the_open_page() {
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        submit(browser, &site).await;
        browser.script("window.mark = 'the same page'").await;
        site.title("<b>2026</b>");
        browser.shows("#name", "<b>2026</b>").await;
        let title = async || browser.client.title().await.unwrap();
        assert_eq!(title().await, "In progress · <b>2026</b>");
        site.report(0.7, "page 7 of 10");
        browser.shows("#message", "page 7 of 10").await;
        assert_eq!(title().await, "70 % · In progress · <b>2026</b>");
        assert_eq!(browser.script("return window.mark").await, "the same page");
        // The server writes the same.
        browser.client.refresh().await.unwrap();
        browser.shows("#name", "<b>2026</b>").await;
        assert_eq!(title().await, "70 % · In progress · <b>2026</b>");
        site.answer(200, RESULT);
        browser.is_at("/result").await;
    })
    .await;
}

#[tokio::test]
async fn page_works_without_scripts() {
    let site = Site::start().await;
    let no_script = Setup { no_script: true };
    browse(no_script, async |browser| {
        submit(browser, &site).await;
        site.report(0.4, "page 4 of 10");
        let bar = "[role=progressbar]";
        browser.attribute_is(bar, "aria-valuenow", "40").await;
        browser.screenshot("no-script").await;
        browser.screen(320, 640, "dark").await;
        browser.screenshot("no-script-small").await;
        site.answer(200, RESULT);
        browser.is_at("/result").await;
        browser.shows("h1", "The report").await;
        assert_eq!((site.posts(), site.streams()), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn queued_job_is_shown_as_waiting_then_running() {
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        submit(browser, &site).await;
        browser.goto(&site.url()).await;
        browser.click("button").await;
        browser.shows("h1", "Waiting for its turn").await;
        for scheme in ["light", "dark"] {
            browser.screen(320, 480, scheme).await;
            browser.screenshot(&format!("queued-{scheme}")).await;
        }
        site.answer(200, "the first");
        browser.shows("h1", "In progress").await;
        site.answer(200, RESULT);
        browser.is_at("/result").await;
        browser.shows("h1", "The report").await;
    })
    .await;
}

#[tokio::test]
async fn button_cancels_the_job() {
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        submit(browser, &site).await;
        browser.click("form button").await;
        browser.shows("h1", "Canceled").await;
        browser.shows("#problem", "The job was canceled.").await;
        browser.screenshot("canceled").await;
    })
    .await;
}

#[tokio::test]
async fn failure_links_to_the_response() {
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        submit(browser, &site).await;
        site.answer(422, "<!doctype html><h1>Not like this");
        browser.shows("h1", "Failed").await;
        let problem = "The service answered 422 Unprocessable Entity.";
        browser.shows("#problem", problem).await;
        browser.screenshot("failed-with-an-answer").await;
        browser.screen(320, 480, "dark").await;
        browser.screenshot("failed-with-an-answer-small").await;
        browser.click("a").await;
        browser.shows("h1", "Not like this").await;
    })
    .await;
}

#[tokio::test]
async fn hostile_message_stays_text_on_a_small_screen() {
    const HOSTILE: &str = "<script>window.hacked = 1</script><img src=x onerror='hacked = 1'>\
        {{id}} Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft";
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        browser.screen(320, 640, "light").await;
        submit(browser, &site).await;
        site.report(0.5, HOSTILE);
        // First inserted by the script, then rendered by the server.
        for _ in ["by script", "by the server"] {
            browser.shows("#message", HOSTILE).await;
            let harmless = "return window.hacked === undefined && !document.querySelector('img')";
            assert_eq!(browser.script(harmless).await, true);
            let width = "return document.documentElement.scrollWidth";
            assert_eq!(browser.script(width).await, 320);
            browser.client.refresh().await.unwrap();
        }
        browser.screenshot("small").await;
    })
    .await;
}

#[tokio::test]
async fn event_source_gets_all_events_and_stops() {
    const SUBSCRIBE: &str = "
        window.received = [];
        const source = new EventSource(arguments[0]);
        source.addEventListener('status', (event) => {
            received.push([event.lastEventId, event.data]);
        });
        source.onerror = () => {
            if (source.readyState === EventSource.CLOSED) window.streamEnded = true;
        };
    ";
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        submit(browser, &site).await;
        let page = browser.client.current_url().await.unwrap();
        // A page of the same site that does not subscribe by itself.
        browser.goto(&site.url()).await;
        let before = site.streams();
        let events = format!("{}/events", page.path());
        let received = || async {
            let received = browser.script("return received").await;
            serde_json::from_value::<Vec<(String, String)>>(received).unwrap()
        };
        browser
            .client
            .execute(SUBSCRIBE, vec![events.into()])
            .await
            .unwrap();
        let count = async |count| {
            browser
                .until("events", async || {
                    (received().await.len() == count).then_some(())
                })
                .await;
        };
        count(1).await;
        site.report(0.5, "half");
        browser
            .until("half", async || {
                received().await.last()?.1.contains("half").then_some(())
            })
            .await;
        site.answer(200, RESULT);
        browser
            .until("the end", async || {
                let closed = browser.script("return window.streamEnded === true").await;
                closed.as_bool().filter(|closed| *closed)
            })
            .await;
        let (id, last) = received().await.pop().unwrap();
        assert!(last.contains("\"succeeded\""), "{last}");
        assert!(id.parse::<u64>().unwrap() >= 3);
        // The stream, and one reconnect, which got 204.
        assert_eq!(site.streams() - before, 2);
    })
    .await;
}

#[tokio::test]
async fn axe_finds_no_violation() {
    let axe = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .with_file_name("axe")
        .join("node_modules/axe-core/axe.min.js");
    let Ok(axe) = std::fs::read_to_string(&axe) else {
        println!("skipped: no axe. `npm install --prefix target/axe axe-core`, or run `./test`");
        return;
    };
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        let check = async |state: &str| {
            for scheme in ["light", "dark"] {
                browser.screen(800, 600, scheme).await;
                browser.script(&axe).await;
                let run =
                    "const done = arguments[0]; axe.run().then((found) => done(found.violations))";
                let violations = browser.client.execute_async(run, Vec::new()).await.unwrap();
                assert_eq!(violations, serde_json::json!([]), "{state}, {scheme}");
            }
        };
        submit(browser, &site).await;
        check("without progress").await;
        site.report(0.5, "half");
        browser.shows("#message", "half").await;
        check("running").await;
        site.answer(500, "<!doctype html><h1>No");
        browser.shows("h1", "Failed").await;
        check("failed").await;
        submit(browser, &site).await;
        let output = site.stream("text/plain");
        // Long enough to be scrolled, and to lose its beginning.
        let text = "A line of an output that is long enough to leave its beginning out.\n";
        output.send(Ok(text.repeat(10_000).into())).unwrap();
        browser
            .shows("#left-out", "The beginning is left out. Open all of it")
            .await;
        check("with output").await;
        drop(output);
        browser.shows("#note", "The output is complete.").await;
        browser.shows("h1", "Done").await;
        check("done, with output").await;
    })
    .await;
}
