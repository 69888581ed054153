//! The example `soak`, at a small size.

use crate::program::Program;

#[tokio::test]
async fn short_soak_ends_without_a_wrong_response() {
    let arguments = ["--requests", "150", "--seed", "7"];
    let mut soak = Program::spawn("soak", &arguments);
    let mut lines = Vec::new();
    while let Some(line) = soak.line().await {
        lines.push(line);
    }
    assert_eq!(soak.ended().await.code(), Some(0), "{lines:#?}");
    let value = |name: &str| {
        let line = lines.iter().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).expect("a line of the summary")
    };
    assert_eq!((value("stuck"), value("wrong")), ("0", "0"));
    assert_eq!(value("accepted"), value("ended"));
    assert_ne!(value("accepted"), "0");
}
