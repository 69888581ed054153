//! The status page while the output of its job is produced.

use std::io;

use bytes::Bytes;
use fantoccini::Locator;
use serde_json::{Value, json};

use crate::{
    driver::{Browser, Setup, browse},
    proxy::Proxy,
    site::Site,
};

/// The script's limits: the length that it keeps, and the excess that it removes at once.
const MAX_SHOWN: u64 = (1 << 18) + (1 << 15);

/// Submits the form at a server, waits for the status page, and marks it.
async fn submit(browser: &Browser, server: std::net::SocketAddr) {
    browser.goto(&format!("http://{server}/")).await;
    browser.click("button").await;
    browser.shows("h1", "In progress").await;
    browser.script("window.mark = 'the same page'").await;
}

async fn is_same_page(browser: &Browser) -> bool {
    browser.script("return window.mark").await == "the same page"
}

async fn text(browser: &Browser) -> Value {
    browser
        .script("return document.querySelector('pre').textContent")
        .await
}

/// Waits until the page has exactly this output.
async fn has_text(browser: &Browser, expected: &str) {
    browser
        .until(&format!("the output {expected:?}"), async || {
            (text(browser).await == expected).then_some(())
        })
        .await;
}

#[tokio::test]
async fn growing_text_stays_when_the_job_succeeds() {
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        submit(browser, site.address).await;
        let output = site.stream("text/plain; charset=utf-8");
        // The last character comes in two chunks.
        output
            .send(Ok("step 1 <b>of</b> 2 \u{1f6b2}\nä".into()))
            .unwrap();
        has_text(browser, "step 1 <b>of</b> 2 \u{1f6b2}\nä").await;
        output.send(Ok(Bytes::from_static(b"\xc3"))).unwrap();
        output
            .send(Ok(Bytes::from_static(b"\xb6\nstep 2")))
            .unwrap();
        has_text(browser, "step 1 <b>of</b> 2 \u{1f6b2}\näö\nstep 2").await;
        site_screens(browser, "output").await;
        browser.shows("h1", "In progress").await;
        drop(output);
        browser.shows("h1", "Done").await;
        browser.shows("#note", "The output is complete.").await;
        assert!(is_same_page(browser).await);
        assert_eq!(browser.client.title().await.unwrap(), "Done");
        has_text(browser, "step 1 <b>of</b> 2 \u{1f6b2}\näö\nstep 2").await;
        site_screens(browser, "output-done").await;
        let cancel = browser.client.find(Locator::Css("form")).await.unwrap();
        assert!(!cancel.is_displayed().await.unwrap());
        browser.shows("#actions a", "Open the result").await;
        browser.click("#actions a").await;
        browser.is_at("/result").await;
    })
    .await;
}

async fn site_screens(browser: &Browser, name: &str) {
    for (width, scheme) in [(800, "light"), (320, "dark")] {
        browser.screen(width, 600, scheme).await;
        browser.screenshot(&format!("{name}-{scheme}")).await;
    }
    browser.screen(800, 600, "light").await;
}

#[tokio::test]
async fn failed_job_shows_what_it_produced() {
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        submit(browser, site.address).await;
        let output = site.stream("application/x-ndjson");
        output.send(Ok("{\"row\":1}\n".into())).unwrap();
        has_text(browser, "{\"row\":1}\n").await;
        output.send(Ok("{\"row\"".into())).unwrap();
        output.send(Err(io::Error::other("a broken disk"))).unwrap();
        browser.shows("h1", "Failed").await;
        browser.shows("#note", "The output broke off here.").await;
        assert!(is_same_page(browser).await);
        has_text(browser, "{\"row\":1}\n{\"row\"").await;
        site_screens(browser, "output-broken").await;
        // So does the page that the server renders.
        let problem = browser.client.find(Locator::Css("#problem")).await.unwrap();
        let problem = problem.text().await.unwrap();
        browser.client.refresh().await.unwrap();
        browser.shows("#note", "The output broke off here.").await;
        has_text(browser, "{\"row\":1}\n{\"row\"").await;
        browser.shows("#problem", &problem).await;
        assert!(!is_same_page(browser).await);
    })
    .await;
}

#[tokio::test]
async fn page_of_html_opens_when_it_is_complete() {
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        submit(browser, site.address).await;
        let output = site.stream("text/html; charset=utf-8");
        output.send(Ok("<!doctype html><h1>Half".into())).unwrap();
        has_text(browser, "<!doctype html><h1>Half").await;
        output.send(Ok(" and whole</h1>".into())).unwrap();
        drop(output);
        browser.is_at("/result").await;
        browser.shows("h1", "Half and whole").await;
    })
    .await;
}

#[tokio::test]
async fn long_text_keeps_its_end_and_the_place() {
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        submit(browser, site.address).await;
        let output = site.stream("text/plain");
        let lines = |from: usize, to: usize| {
            let lines = (from..to).map(|number| format!("line {number} of a long output\n"));
            output.send(Ok(lines.collect::<String>().into())).unwrap();
        };
        let last_line = async |number: usize| {
            let end = format!("line {number} of a long output\n");
            browser
                .until(&end, async || {
                    text(browser).await.as_str()?.ends_with(&end).then_some(())
                })
                .await;
        };
        let scrolled = "const pre = document.querySelector('pre');
            return [pre.scrollTop > 0, pre.scrollHeight - pre.clientHeight - pre.scrollTop < 2]";
        for from in (0..40_000).step_by(1_000) {
            lines(from, from + 1_000);
        }
        last_line(39_999).await;
        let length = text(browser).await.as_str().unwrap().len() as u64;
        assert!((1 << 18..=MAX_SHOWN).contains(&length), "{length}");
        browser
            .shows("#left-out", "The beginning is left out. Open all of it")
            .await;
        // The page follows the end, until its reader scrolls.
        assert_eq!(browser.script(scrolled).await, json!([true, true]));
        lines(40_000, 40_010);
        last_line(40_009).await;
        assert_eq!(browser.script(scrolled).await, json!([true, true]));
        let visible_line = "
            const { left, top } = document.querySelector('pre').getBoundingClientRect();
            const at = document.caretRangeFromPoint(left + 60, top + 60);
            const text = at.startContainer.data;
            const start = text.lastIndexOf('\\n', at.startOffset - 1) + 1;
            return text.slice(start, text.indexOf('\\n', start))";
        browser
            .script("document.querySelector('pre').scrollTop -= 20000")
            .await;
        let before = browser.script(visible_line).await;
        lines(40_010, 43_000);
        last_line(42_999).await;
        assert_eq!(browser.script(scrolled).await, json!([true, false]));
        assert_eq!(browser.script(visible_line).await, before);
        browser.screenshot("output-long").await;
        drop(output);
        browser.shows("#note", "The output is complete.").await;
    })
    .await;
}

#[tokio::test]
async fn cut_connection_loses_no_text() {
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        let proxy = Proxy::start(site.address, &[1200, 1000]).await;
        submit(browser, proxy.address).await;
        let output = site.stream("text/plain");
        let text: String = (0..200).map(|number| format!("{number} äöü\n")).collect();
        let (shown, rest) = text.split_once("20").unwrap();
        // A browser may drop what comes together with the end of its connection.
        output.send(Ok(shown.to_owned().into())).unwrap();
        has_text(browser, shown).await;
        output.send(Ok(format!("20{rest}").into())).unwrap();
        has_text(browser, &text).await;
        assert_eq!(proxy.cuts_left(), 0);
        let streams = proxy.streams();
        let last = streams.last().unwrap().to_ascii_lowercase();
        assert!(last.contains("\r\nif-match: \""), "{last}");
        assert!(!last.contains("?offset=0 "), "{last}");
        drop(output);
        browser.shows("#note", "The output is complete.").await;
        has_text(browser, &text).await;
    })
    .await;
}

#[tokio::test]
async fn other_output_holds_no_connection() {
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        submit(browser, site.address).await;
        let output = site.stream("image/svg+xml");
        let image = "<svg xmlns='http://www.w3.org/2000/svg'/>";
        output.send(Ok(image.into())).unwrap();
        // The response goes on, so only the page can have closed it.
        browser
            .until("a closed response", async || {
                (site.outputs() == 1 && site.open_outputs() == 0).then_some(())
            })
            .await;
        assert_eq!(text(browser).await, "");
        drop(output);
        browser.is_at("/result").await;
    })
    .await;
}

#[tokio::test]
async fn hidden_page_leaves_and_comes_back() {
    const HIDE: &str = "
        Object.defineProperty(document, 'hidden', { value: arguments[0], configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
    ";
    let site = Site::start().await;
    browse(Setup::default(), async |browser| {
        submit(browser, site.address).await;
        let hide = async |is_hidden: bool| {
            let done = browser.client.execute(HIDE, vec![is_hidden.into()]).await;
            done.unwrap();
        };
        let output = site.stream("text/plain");
        output.send(Ok("seen, ".into())).unwrap();
        has_text(browser, "seen, ").await;
        assert_eq!(site.open_outputs(), 1);
        hide(true).await;
        browser
            .until("a closed response", async || {
                (site.open_outputs() == 0).then_some(())
            })
            .await;
        output.send(Ok("unseen, ".into())).unwrap();
        assert_eq!(text(browser).await, "seen, ");
        hide(false).await;
        has_text(browser, "seen, unseen, ").await;
    })
    .await;
}

#[tokio::test]
async fn page_without_scripts_links_the_output() {
    let site = Site::start().await;
    let no_script = Setup { no_script: true };
    browse(no_script, async |browser| {
        browser.goto(&format!("http://{}/", site.address)).await;
        browser.click("button").await;
        browser.shows("noscript a", "Watch the output").await;
        let output = site.stream("text/plain");
        output.send(Ok("so far".into())).unwrap();
        let link = browser.client.find(Locator::Css("noscript a")).await;
        let link = link.unwrap().attr("href").await.unwrap().unwrap();
        let page = browser.client.current_url().await.unwrap();
        // A navigation lasts until its document is complete.
        let stream = page.join(&link).unwrap();
        drop(output);
        browser.goto(stream.as_str()).await;
        browser.shows("body", "so far").await;
    })
    .await;
}
