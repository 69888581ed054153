//! Gives jobs titles.

use std::time::Duration;

use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{AcceptedLayer, Filter, JobHandle, Jobs, Owner, When};

use crate::support::*;

const TITLE: &str = "Report <b>\"2026\"</b>";

fn as_user(request: http::Request<Body>) -> http::Request<Body> {
    with(request, &[("user", "me")])
}

#[tokio::test(start_paused = true)]
async fn title_is_in_documents_lists_events_and_the_page() {
    let jobs = Jobs::builder()
        .owner(|head| head.headers.get("user").map(Owner::new))
        .build();
    let layer = jobs.layer().title(|head| {
        let name = head.headers.get("x-report")?.to_str().ok()?;
        Some(name.into())
    });
    let service = layer.layer(inner(async |_| {
        sleep(Duration::from_secs(10)).await;
        ok("")
    }));
    let request = with(as_user(post("/")), &[("x-report", TITLE)]);
    let accepted = send(&service, request).await;
    assert_eq!(accepted.json()["title"], TITLE);
    let path = accepted.location();
    sleep(Duration::from_secs(1)).await;
    let page = as_user(with(get(path), &[("accept", "text/html")]));
    let page = send(&service, page).await;
    let escaped = "Report &lt;b&gt;&quot;2026&quot;&lt;/b&gt;";
    for part in [
        &*format!("<p id=\"name\">{escaped}</p>"),
        &format!("<title>In progress · {escaped}</title>"),
    ] {
        assert!(page.text().contains(part), "{part} in {}", page.text());
    }
    let list = send(&service, as_user(get("/jobs"))).await.json();
    assert_eq!(list["jobs"][0]["title"], TITLE);
    let events = as_user(get(&format!("{path}/events")));
    let events = send(&service, events).await;
    let documents = events.text().split("data: ").skip(1);
    let is_titled = |data: &str| data.contains(r#""title":"Report"#);
    let titled: Vec<_> = documents.map(is_titled).collect();
    assert_eq!(titled, [true, true], "{}", events.text());
    let ended = send(&service, as_user(get(path))).await.json();
    assert_eq!(ended["status"], "succeeded");
    assert_eq!(ended["title"], TITLE);
    let page = jobs.list(&Filter::new()).await.unwrap();
    assert_eq!(page.jobs[0].title.as_deref(), Some(TITLE));
}

#[tokio::test(start_paused = true)]
async fn call_replaces_the_title_of_the_layer() {
    let service = AcceptedLayer::new()
        .when(When::After(Duration::from_secs(1)))
        .title(|head| Some(head.uri.path().into()))
        .layer(inner(async |request| {
            let job = JobHandle::current();
            match request.uri().path() {
                "/early" => job.title("before the 202"),
                "/late" => {
                    sleep(Duration::from_secs(2)).await;
                    job.title("after the 202");
                }
                _ => job.progress(0.5),
            }
            sleep(Duration::from_secs(10)).await;
            job.progress(0.75);
            ok("")
        }));
    for (path, first, last) in [
        ("/early", "before the 202", "before the 202"),
        ("/late", "/late", "after the 202"),
        ("/other", "/other", "/other"),
    ] {
        let accepted = send(&service, post(path)).await;
        assert_eq!(accepted.json()["title"], first, "{path}");
        sleep(Duration::from_secs(3)).await;
        let running = send(&service, get(accepted.location())).await.json();
        assert_eq!(running["title"], last, "{path}");
        let ended = ended(&service, &accepted).await;
        assert_eq!(
            (&ended["title"], &ended["percentComplete"]),
            (&last.into(), &100.into())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn title_just_before_the_end_is_kept() {
    let service = AcceptedLayer::new().layer(inner(async |_| {
        JobHandle::current().title("t".repeat(1_000));
        ok("")
    }));
    let accepted = send(&service, post("/")).await;
    let ended = ended(&service, &accepted).await;
    assert_eq!(ended["title"], "t".repeat(200));
    assert_eq!(ended.get("percentComplete"), None);
}

#[tokio::test(start_paused = true)]
async fn job_without_a_title_has_no_title_member() {
    let service = AcceptedLayer::new()
        .title(|_| None)
        .layer(inner(async |_| ok("")));
    let accepted = send(&service, post("/")).await;
    assert_eq!(accepted.json().get("title"), None);
}
