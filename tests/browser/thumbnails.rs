//! The example `thumbnails`, from the upload to the images.

use std::path::{Path, PathBuf};

use fantoccini::Locator;

use crate::{
    driver::{Setup, browse},
    program::Program,
};

/// Writes a JPEG file and returns its path.
fn photo() -> PathBuf {
    let picture = image::RgbImage::from_fn(900, 600, |x, y| {
        let wave = (f64::from(x) / 40.0).sin() + (f64::from(y) / 30.0).cos();
        image::Rgb([(x / 4) as u8, (y / 3) as u8, (128.0 + wave * 60.0) as u8])
    });
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("photo.jpg");
    picture.save(&path).unwrap();
    path
}

#[tokio::test]
async fn photos_become_thumbnails() {
    browse(Setup::default(), async |browser| {
        let server = Program::start("thumbnails", &["127.0.0.1:0"]).await;
        let photo = photo().display().to_string();
        browser.goto(&format!("http://{}/", server.address)).await;
        let files = browser.client.find(Locator::Css("input")).await.unwrap();
        for _ in 0..3 {
            files.send_keys(&photo).await.unwrap();
        }
        browser.screenshot("thumbnails-form").await;
        browser.screen(320, 640, "dark").await;
        browser.screenshot("thumbnails-form-small").await;
        browser.screen(800, 600, "light").await;
        browser.click("button").await;
        // A debug build usually takes long enough for a screenshot of its progress.
        let progress = browser
            .until("progress", async || {
                let url = browser.client.current_url().await.ok()?;
                if url.path().ends_with("/result") || url.path() == "/photos" {
                    return Some(None);
                }
                let bar = browser
                    .client
                    .find(Locator::Css("[role=progressbar]"))
                    .await
                    .ok()?;
                let now = bar.attr("aria-valuenow").await.ok()??;
                now.parse::<u8>().ok().filter(|now| *now > 0).map(Some)
            })
            .await;
        if progress.is_some() {
            browser.screenshot("thumbnails-progress").await;
        }
        browser.shows("h1", "Your thumbnails").await;
        let count =
            "return [...document.images].filter((image) => image.naturalWidth === 480).length";
        assert_eq!(browser.script(count).await, 24);
        browser.screenshot("thumbnails-result").await;
    })
    .await;
}
