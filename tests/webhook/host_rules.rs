//! Tests the texts of rules on hosts.

use tower_accepted::webhook::HostRule;

#[test]
fn rule_is_written_in_its_canonical_form() {
    for (text, canonical) in [
        ("hooks.example.com", "hooks.example.com"),
        ("HOOKS.example.COM:8443", "hooks.example.com:8443"),
        ("*.Example.com", "*.example.com"),
        ("*.a.example:1", "*.a.example:1"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("localhost", "localhost"),
        ("0x7f.1", "127.0.0.1"),
        ("192.0.2.1:443", "192.0.2.1:443"),
        ("[2001:DB8::0:1]", "[2001:db8::1]"),
        ("[::1]:65535", "[::1]:65535"),
    ] {
        let rule: HostRule = text.parse().expect(text);
        assert_eq!(rule.to_string(), canonical);
        assert_eq!(canonical.parse(), Ok(rule));
    }
}

#[test]
fn invalid_rule_is_refused() {
    for text in [
        "",
        "*",
        "*.",
        "**.example.com",
        "*.*.example.com",
        "a.*.example.com",
        "*example.com",
        ".example.com",
        "example.com.",
        "a..example.com",
        "https://example.com",
        "example.com/",
        "u@example.com",
        "exa mple.com",
        "example.com:",
        "example.com:0",
        "example.com:+1",
        "example.com:65536",
        "example.com:https",
        "*.192.0.2.1",
        "*.2.1",
        "*.[::1]",
        "::1",
        "[::1",
        "[::1]:",
        "256.0.0.1",
    ] {
        let error = text.parse::<HostRule>().expect_err(text);
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}
