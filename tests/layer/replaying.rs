//! Replays the response of the inner service as the result.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use proptest::{collection::vec, option, prelude::*};
use serde_json::{Value, json};
use tower::Layer;
use tower_accepted::{Dialect, Jobs};

use crate::support::*;

/// Runs a job that ends with `response`, and returns its result.
async fn replayed(jobs: &Jobs, response: Answer) -> Answer {
    replayed_and_document(jobs, response).await.0
}

/// Runs a job that ends with `response`, and returns its result and its last document.
async fn replayed_and_document(jobs: &Jobs, response: Answer) -> (Answer, Value) {
    let service = jobs.layer().layer(inner(move |_| {
        let Answer {
            status,
            headers,
            body,
            trailers,
        } = response.clone();
        async move {
            let body = Body::from(body).with_trailers(async { trailers.map(Ok) });
            let mut response = Response::new(Body::new(body));
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok(response)
        }
    }));
    let accepted = send(&service, post("/")).await;
    let document = ended(&service, &accepted).await;
    let first = result(&service, &accepted).await;
    let second = result(&service, &accepted).await;
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
    (first, document)
}

fn response(headers: &[(&'static str, &'static str)]) -> Answer {
    let fields = headers.iter().map(|&(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    let mut headers = HeaderMap::new();
    fields.for_each(|(name, value)| {
        headers.append(name, value);
    });
    Answer {
        status: StatusCode::OK,
        headers,
        body: Bytes::from_static(b"body"),
        trailers: None,
    }
}

#[tokio::test(start_paused = true)]
async fn ranges_of_a_large_result_are_exact() {
    let body: Bytes = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
    let service = Jobs::new().layer().layer(inner({
        let body = body.clone();
        move |_| {
            let frames: Vec<_> = body.chunks(30_000).map(Bytes::copy_from_slice).collect();
            let frames = stream::iter(frames.into_iter().map(Ok::<_, Failed>));
            async { Ok(Response::new(Body::from_stream(frames))) }
        }
    }));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let path = format!("{}/result", accepted.location());
    let whole = send(&service, get(&path)).await;
    assert_eq!((whole.status, &whole.body), (StatusCode::OK, &body));
    assert_eq!(whole.header("content-length"), Some("200000"));
    for (first, last) in [
        (0, 0),
        (0, 65_535),
        (65_535, 65_536),
        (65_536, 131_071),
        (1, 199_999),
        (199_999, 199_999),
    ] {
        let range = format!("bytes={first}-{last}");
        let part = send(&service, with(get(&path), &[("range", range.as_str())])).await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(part.body, body.slice(first..=last), "{range}");
        let length = (last - first + 1).to_string();
        assert_eq!(part.header("content-length"), Some(length.as_str()));
    }
    let beyond = send(&service, with(get(&path), &[("range", "bytes=200000-")])).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.header("content-range"), Some("bytes */200000"));
}

#[tokio::test(start_paused = true)]
async fn large_result_with_trailers_has_no_ranges() {
    let service = Jobs::new().layer().layer(inner(async |_| {
        let frames = stream::iter(vec![vec![7; 40_000]; 2].into_iter().map(Ok::<_, Failed>));
        let trailers = response(&[("x-sum", "1")]).headers;
        let body = Body::from_stream(frames).with_trailers(async { Some(Ok(trailers)) });
        Ok(Response::new(Body::new(body)))
    }));
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let path = format!("{}/result", accepted.location());
    let part = send(&service, with(get(&path), &[("range", "bytes=1-2")])).await;
    assert_eq!((part.status, part.body.len()), (StatusCode::OK, 80_000));
    assert_eq!(part.header("accept-ranges"), None);
    assert_eq!(part.header("content-length"), None);
    assert_eq!(part.trailers.expect("trailers")["x-sum"], "1");
    let head = send(&service, request("HEAD", &path)).await;
    assert_eq!(head.header("accept-ranges"), None);
    assert_eq!(head.header("content-length"), Some("80000"));
}

#[tokio::test(start_paused = true)]
async fn hop_by_hop_fields_are_not_replayed() {
    let answer = replayed(
        &Jobs::new(),
        response(&[
            ("connection", "keep-alive, x-hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("x-end", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
        ]),
    )
    .await;
    for name in [
        "connection",
        "keep-alive",
        "x-hop",
        "transfer-encoding",
        "upgrade",
    ] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("x-end"), Some("1"));
    assert_eq!(answer.header("content-length"), Some("4"));
}

#[tokio::test(start_paused = true)]
async fn result_is_private_and_nosniff_by_default() {
    let plain = replayed(&Jobs::new(), response(&[])).await;
    assert_eq!(plain.header("cache-control"), Some("private, no-store"));
    assert_eq!(plain.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(plain.header("content-security-policy"), None);
    let set = &[
        ("cache-control", "max-age=60"),
        ("x-content-type-options", "sniff"),
    ];
    let set = replayed(&Jobs::new(), response(set)).await;
    assert_eq!(set.header("cache-control"), Some("max-age=60"));
    assert_eq!(set.header("x-content-type-options"), Some("sniff"));
}

#[tokio::test(start_paused = true)]
async fn cookies_are_replayed_only_if_enabled() {
    let cookies = response(&[
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("clear-site-data", "\"*\""),
    ]);
    let without = replayed(&Jobs::new(), cookies.clone()).await;
    assert!(!without.headers.contains_key("set-cookie"));
    assert!(!without.headers.contains_key("clear-site-data"));
    let jobs = Jobs::builder().replay_cookies(true).build();
    let with = replayed(&jobs, cookies).await;
    let cookies: Vec<_> = with.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(with.header("clear-site-data"), Some("\"*\""));
}

#[tokio::test(start_paused = true)]
async fn sandbox_policy_is_added_if_enabled() {
    let jobs = Jobs::builder().sandbox_results(true).build();
    let policy = response(&[("content-security-policy", "default-src 'none'")]);
    let answer = replayed(&jobs, policy).await;
    let policies: Vec<_> = answer
        .headers
        .get_all("content-security-policy")
        .iter()
        .collect();
    assert_eq!(policies, ["default-src 'none'", "sandbox"]);
}

#[tokio::test(start_paused = true)]
async fn bodiless_response_is_replayed_without_length() {
    let mut response = response(&[]);
    (response.status, response.body) = (StatusCode::NO_CONTENT, Bytes::new());
    let answer = replayed(&Jobs::new(), response).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(answer.header("content-length"), None);
}

#[tokio::test(start_paused = true)]
async fn content_that_a_status_cannot_have_is_dropped() {
    for (status, length) in [(204, None), (205, Some("0")), (304, Some("0"))] {
        let mut response = response(&[("content-length", "4")]);
        response.status = StatusCode::from_u16(status).unwrap();
        response.trailers = Some(HeaderMap::new());
        let (answer, document) = replayed_and_document(&Jobs::new(), response).await;
        assert_eq!((answer.text(), answer.trailers.as_ref()), ("", None));
        assert_eq!(answer.header("content-length"), length, "{status}");
        assert_eq!(answer.header("asyncresult"), Some(&*status.to_string()));
        assert_eq!(
            document["response"],
            json!({"status": status, "contentLength": 0})
        );
    }
}

/// A status that means something else in the answer to a GET would mislead its client.
#[tokio::test(start_paused = true)]
async fn misleading_status_is_served_as_200() {
    for (status, served) in [
        (202, 200),
        (206, 200),
        (304, 200),
        (307, 200),
        (308, 200),
        (201, 201),
        (303, 303),
        (407, 407),
        (412, 412),
        (503, 503),
    ] {
        for dialect in [Dialect::Default, Dialect::Pending202, Dialect::SeeOther] {
            let jobs = Jobs::builder().dialect(dialect).build();
            let service = jobs.layer().layer(inner(move |_| async move {
                let response = Response::builder().status(status);
                let response = response.header("location", "/reports/7");
                Ok(response.body(Body::from("")).unwrap())
            }));
            let accepted = send(&service, post("/")).await;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let path = format!("{}/result", accepted.location());
            for method in ["GET", "HEAD"] {
                let answer = send(&service, request(method, &path)).await;
                assert_eq!(answer.status.as_u16(), served, "{status}");
                assert_eq!(answer.header("asyncresult"), Some(&*status.to_string()));
                assert_eq!(answer.header("location"), Some("/reports/7"));
                assert_eq!(answer.header("content-length"), Some("0"));
            }
            let document = send(&service, get(&format!("{}/status", accepted.location()))).await;
            assert_eq!(document.json()["response"]["status"], status);
        }
    }
}

/// A client of HTTP would take it for a reason to ask again.
#[tokio::test(start_paused = true)]
async fn retry_after_is_in_the_document_only() {
    for value in ["1", "Mon, 23 Nov 2026 13:40:01 GMT"] {
        let mut response = response(&[("retry-after", value)]);
        response.status = StatusCode::SERVICE_UNAVAILABLE;
        let (answer, document) = replayed_and_document(&Jobs::new(), response).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.header("retry-after"), None);
        let shown = json!({"status": 503, "contentLength": 4, "retryAfter": value});
        assert_eq!(document["response"], shown);
    }
}

/// Returns `true` if a replay may change the field.
fn is_changeable(name: &HeaderName) -> bool {
    [
        "accept-ranges",
        "asyncresult",
        "cache-control",
        "clear-site-data",
        "connection",
        "content-length",
        "etag",
        "keep-alive",
        "proxy-connection",
        "retry-after",
        "set-cookie",
        "te",
        "transfer-encoding",
        "upgrade",
        "vary",
        "x-content-type-options",
    ]
    .contains(&name.as_str())
}

fn fields() -> impl Strategy<Value = HeaderMap> {
    let name = prop_oneof![
        "[a-z][a-z0-9-]{0,12}",
        Just("x-same".to_owned()),
        Just("content-type".to_owned())
    ];
    vec((name, "[ -~\u{80}-\u{ff}]{0,60}"), 0..10).prop_map(|fields| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::try_from(name).unwrap();
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    })
}

fn unchangeable(fields: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let fields = fields
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    fields.filter(|(name, _)| !is_changeable(name)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_response_is_replayed_unchanged(
        code in (200_u16..1000),
        headers in fields(),
        body in prop_oneof![vec(any::<u8>(), 0..200), vec(any::<u8>(), 66_000..67_000)],
        trailers in option::of(fields()),
    ) {
        let status = StatusCode::from_u16(code).unwrap();
        let mut response = Answer { status, headers, body: body.into(), trailers };
        response.headers.remove("content-length");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let answer = runtime.block_on(replayed(&Jobs::new(), response.clone()));
        let is_misleading = [202, 206, 304, 307, 308].contains(&code);
        prop_assert_eq!(answer.status, if is_misleading { StatusCode::OK } else { status });
        if [204, 205, 304].contains(&code) {
            (response.body, response.trailers) = (Bytes::new(), None);
        }
        prop_assert_eq!(answer.body, response.body);
        prop_assert_eq!(unchangeable(&answer.headers), unchangeable(&response.headers));
        prop_assert_eq!(answer.trailers, response.trailers);
    }
}
