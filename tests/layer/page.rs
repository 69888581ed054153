//! Shows a job in a browser.

use std::{future::pending, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{AcceptedLayer, Dialect, JobHandle, Jobs, Links, When};

use crate::support::*;

/// The `Accept` field of Chromium.
const BROWSER: [(&str, &str); 1] = [(
    "accept",
    "text/html,application/xhtml+xml,application/xml;q=0.9,\
     image/avif,image/webp,image/apng,*/*;q=0.8",
)];

fn as_browser(request: Request<Body>) -> Request<Body> {
    with(request, &BROWSER)
}

#[tokio::test(start_paused = true)]
async fn form_leads_to_the_page_and_then_the_result() {
    for dialect in [Dialect::Default, Dialect::Pending202, Dialect::SeeOther] {
        let jobs = Jobs::builder().dialect(dialect).build();
        let service = jobs.layer().layer(inner(async |_| {
            JobHandle::current().progress(0.4);
            JobHandle::current().message("page 4 of 10");
            sleep(Duration::from_secs(90)).await;
            ok("the result")
        }));
        let accepted = send(&service, as_browser(post("/reports"))).await;
        assert_eq!(accepted.status, StatusCode::SEE_OTHER);
        // With a 303, `Retry-After` would delay the redirect.
        assert_eq!(accepted.header("retry-after"), None);
        let page_path = accepted.header("location").unwrap();
        sleep(Duration::from_secs(65)).await;
        let page = send(&service, as_browser(get(page_path))).await;
        assert_eq!(page.status, StatusCode::OK);
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        let id = page_path.strip_prefix("/jobs/").unwrap();
        for part in [
            "<h1>In progress</h1>",
            "page 4 of 10",
            r#"aria-valuenow="40""#,
            r#"<rect width="40%""#,
            "1 min 5 s",
            r#"<noscript><meta http-equiv="refresh" content="5"></noscript>"#,
            &format!(r#"<form method="post" action="{id}/cancel">"#),
            &format!(r#"<a href="{id}/result" hidden>"#),
        ] {
            assert!(page.text().contains(part), "{part} in {}", page.text());
        }
        sleep(Duration::from_secs(30)).await;
        let page = send(&service, as_browser(get(page_path))).await;
        for part in [
            "<h1>Done</h1>",
            &format!(r#"<meta http-equiv="refresh" content="0; url={id}/result">"#),
            &format!(r#"<a href="{id}/result">Open the result</a>"#),
            "1 min 30 s",
        ] {
            assert!(page.text().contains(part), "{part} in {}", page.text());
        }
        let result = send(&service, as_browser(get(&format!("{page_path}/result")))).await;
        assert_eq!(result.text(), "the result");
    }
}

#[tokio::test(start_paused = true)]
async fn page_shows_the_time_left_until_it_has_passed() {
    let turn = Counter::default();
    let service = AcceptedLayer::new().layer(inner(move |_| {
        turn.up();
        // The last call takes longer than the calls before it.
        let seconds = if turn.count() > 20 { 90 } else { 20 };
        async move {
            sleep(Duration::from_secs(seconds)).await;
            ok("")
        }
    }));
    for _ in 0..20 {
        let accepted = send(&service, post("/reports")).await;
        ended(&service, &accepted).await;
    }
    let accepted = send(&service, as_browser(post("/reports"))).await;
    let page = accepted.header("location").unwrap();
    sleep(Duration::from_secs(5)).await;
    let early = send(&service, as_browser(get(page))).await;
    let left = r#"<div id="left-row"><dt>About</dt><dd><span id="left">1"#;
    assert!(early.text().contains(left), "{}", early.text());
    sleep(Duration::from_secs(20)).await;
    let late = send(&service, as_browser(get(page))).await;
    assert!(late.text().contains(r#"<div id="left-row" hidden>"#));
}

#[tokio::test(start_paused = true)]
async fn wildcard_accept_selects_the_document() {
    let service = AcceptedLayer::new().layer(inner(async |_| ok("")));
    for accept in ["*/*", "application/json", "text/html;q=0.5, */*"] {
        let accepted = send(&service, with(post("/"), &[("accept", accept)])).await;
        let request = with(get(accepted.location()), &[("accept", accept)]);
        let document = send(&service, request).await;
        assert_eq!(document.header("content-type"), Some("application/json"));
        assert_eq!(document.header("vary"), Some("accept, prefer"));
    }
}

#[tokio::test(start_paused = true)]
async fn only_an_accepted_request_is_redirected() {
    let service = AcceptedLayer::new()
        .when(When::After(Duration::from_secs(1)))
        .layer(inner(async |request: Request<_>| {
            if request.uri().path() == "/slow" {
                sleep(Duration::from_secs(5)).await;
            }
            ok("the answer")
        }));
    let answer = send(&service, as_browser(post("/quick"))).await;
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::OK, "the answer")
    );
    let answer = send(&service, as_browser(post("/slow"))).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
}

#[tokio::test(start_paused = true)]
async fn cancel_redirects_back_to_the_page() {
    let relative = Jobs::builder().links(Links::Relative).build();
    for (jobs, back) in [(Jobs::new(), "/jobs/"), (relative, "../")] {
        let service = jobs.layer().layer(inner(async |_| {
            pending::<Result<Response<Body>, Failed>>().await
        }));
        let accepted = send(&service, post("/")).await;
        let id = accepted.id();
        let path = format!("/jobs/{id}/cancel");
        let canceled = send(&service, as_browser(post(&path))).await;
        assert_eq!(canceled.status, StatusCode::SEE_OTHER);
        let location = canceled.header("location");
        assert_eq!(location, Some(&*format!("{back}{id}")));
        let page = send(&service, as_browser(get(&format!("/jobs/{id}")))).await;
        assert!(page.text().contains("<h1>Canceled</h1>"));
        assert!(!page.text().contains("http-equiv"));
    }
}

#[tokio::test(start_paused = true)]
async fn page_shows_the_error_and_links_a_response() {
    let service = AcceptedLayer::new().layer(inner(async |request: Request<_>| {
        match request.uri().path() {
            "/refused" => Ok(Response::builder()
                .status(StatusCode::UNPROCESSABLE_ENTITY)
                .body(Body::from("no"))
                .unwrap()),
            "/panic" => panic!("with the password 'sesame'"),
            _ => Err(Failed),
        }
    }));
    for (path, problem, link) in [
        (
            "/refused",
            "The service answered 422",
            "\">Open the answer</a>",
        ),
        (
            "/panic",
            "stopped unexpectedly",
            "\" hidden>Open the answer</a>",
        ),
        (
            "/error",
            "could not be reached",
            "\" hidden>Open the answer</a>",
        ),
    ] {
        let accepted = send(&service, post(path)).await;
        sleep(Duration::from_secs(1)).await;
        let page = send(&service, as_browser(get(accepted.location()))).await;
        let text = page.text();
        assert!(text.contains("<h1>Failed</h1>"), "{text}");
        assert!(text.contains(problem) && text.contains(link), "{text}");
        assert!(!text.contains("sesame"));
    }
}

#[tokio::test(start_paused = true)]
async fn page_links_output_that_no_result_shows() {
    let service = AcceptedLayer::new().layer(inner(async |request: Request<_>| {
        let part = Ok(Bytes::from_static(b"a part"));
        match request.uri().path() {
            "/endless" => {
                let frames = stream::iter([part]).chain(stream::pending());
                Ok(Response::new(Body::from_stream(frames)))
            }
            "/breaks" => {
                let frames = stream::iter([part, Err(Failed)]);
                Ok(Response::new(Body::from_stream(frames)))
            }
            "/fails" => Err(Failed),
            _ => ok("the whole"),
        }
    }));
    for (path, label) in [
        ("/endless", Some("Watch the output")),
        ("/breaks", Some("Open what there is")),
        ("/fails", None),
        ("/succeeds", None),
    ] {
        let accepted = send(&service, post(path)).await;
        sleep(Duration::from_secs(1)).await;
        let page = send(&service, as_browser(get(accepted.location()))).await;
        let text = page.text();
        // The page's script looks for output under the same condition.
        assert_eq!(text.contains("\" data-output>"), label.is_some(), "{path}");
        let link = format!(
            r#"<noscript><a href="{}/stream" target="_blank" rel="noopener">{}</a></noscript>"#,
            accepted.id(),
            label.unwrap_or_default(),
        );
        assert_eq!(text.contains(&link), label.is_some(), "{path}: {text}");
        assert_eq!(text.matches("<noscript><a").count(), label.iter().count());
    }
}

#[tokio::test(start_paused = true)]
async fn message_is_shown_as_plain_text() {
    const HOSTILE: &str = "</p><script>alert(1)</script>{{id}}\" onload='x' &amp;";
    let service = AcceptedLayer::new().layer(inner(async |_| {
        JobHandle::current().message(HOSTILE);
        pending::<Result<Response<Body>, Failed>>().await
    }));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    let page = send(&service, as_browser(get(accepted.location()))).await;
    let shown = "<p id=\"message\">&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt;{{id}}&quot; \
                 onload=&#39;x&#39; &amp;amp;</p>";
    assert!(page.text().contains(shown), "{}", page.text());
}

#[tokio::test(start_paused = true)]
async fn page_runs_only_its_own_script() {
    let service = AcceptedLayer::new().layer(inner(async |_| ok("")));
    let accepted = send(&service, post("/")).await;
    let page = send(&service, as_browser(get(accepted.location()))).await;
    let policy = page.header("content-security-policy").unwrap();
    for tag in ["style", "script"] {
        let (_, rest) = page.text().split_once(&format!("<{tag}>")).unwrap();
        let (text, _) = rest.split_once(&format!("</{tag}>")).unwrap();
        let hash = STANDARD.encode(Sha256::digest(text));
        assert!(policy.contains(&format!("{tag}-src 'sha256-{hash}'")));
    }
    for directive in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(!policy.contains("unsafe"));
    assert_eq!(page.header("referrer-policy"), Some("same-origin"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("vary"), Some("accept, prefer"));
    assert!(!page.text().contains("http://") && !page.text().contains("https://"));
}

#[tokio::test(start_paused = true)]
async fn page_and_document_have_different_etags() {
    let service = AcceptedLayer::new().layer(inner(async |_| ok("")));
    let accepted = send(&service, post("/")).await;
    sleep(Duration::from_secs(1)).await;
    let page = send(&service, as_browser(get(accepted.location()))).await;
    let document = send(&service, get(accepted.location())).await;
    let (page, document) = (page.header("etag"), document.header("etag"));
    assert_ne!(page, document);
    let again = |etag: Option<&str>| {
        let request = as_browser(get(accepted.location()));
        send(&service, with(request, &[("if-none-match", etag.unwrap())]))
    };
    assert_eq!(again(page).await.status, StatusCode::NOT_MODIFIED);
    assert_eq!(again(document).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn browser_gets_the_page_for_a_result_that_is_none() {
    for dialect in [Dialect::Default, Dialect::Pending202, Dialect::SeeOther] {
        let jobs = Jobs::builder().dialect(dialect).build();
        let service = jobs.layer().layer(inner(async |request| {
            sleep(Duration::from_secs(5)).await;
            match request.uri().path() {
                "/fails" => Err(Failed),
                _ => ok(""),
            }
        }));
        let canceled = send(&service, post("/")).await;
        let failed = send(&service, post("/fails")).await;
        jobs.cancel(canceled.id()).await.unwrap();
        sleep(Duration::from_secs(10)).await;
        for (accepted, status, heading) in [(canceled, 409, "Canceled"), (failed, 500, "Failed")] {
            let id = accepted.id();
            for resource in ["result", "stream"] {
                let path = format!("{}/{resource}", accepted.location());
                let page = send(&service, as_browser(get(&path))).await;
                assert_eq!(page.status, status, "{path}");
                let html = Some("text/html; charset=utf-8");
                assert_eq!(page.header("content-type"), html);
                assert_eq!(page.header("cache-control"), Some("no-store"));
                assert_eq!(page.header("etag"), None);
                let vary: Vec<_> = page.headers.get_all("vary").iter().collect();
                assert!(
                    vary.iter()
                        .any(|vary| vary.to_str().unwrap().contains("accept"))
                );
                let text = page.text();
                assert!(text.contains(&format!("<h1>{heading}</h1>")), "{text}");
                // Its links begin at this resource.
                assert!(
                    text.contains(&format!("href=\"../{id}/result\" hidden")),
                    "{text}"
                );
                assert!(!text.contains(&format!("\"{id}/")), "{text}");
                // Other clients get the problem.
                let problem = send(&service, get(&path)).await;
                assert_eq!(problem.status, status, "{path}");
                let json = Some("application/problem+json");
                assert_eq!(problem.header("content-type"), json);
            }
            let monitor = send(&service, as_browser(get(accepted.location()))).await;
            assert_eq!(monitor.status, StatusCode::OK);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn error_of_the_service_is_its_own_page() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        let mut response = Response::new(Body::from("the service's own page"));
        *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
        Ok(response)
    }));
    let accepted = send(&service, post("/")).await;
    assert_eq!(ended(&service, &accepted).await["status"], "failed");
    let path = format!("{}/result", accepted.location());
    let result = send(&service, as_browser(get(&path))).await;
    assert_eq!(result.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(result.text(), "the service's own page");
}
