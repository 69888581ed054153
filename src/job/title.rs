//! The title of a job, for people.

use std::sync::Arc;

/// The maximum length of a title, in characters. A longer one is cut.
const MAX_TITLE_CHARS: usize = 200;

/// Returns a text as a title, or `None` if it is blank. Characters that break the line or change
/// its direction become spaces, since a title is one line and may be shown in a terminal.
pub(crate) fn title(text: &str) -> Option<Arc<str>> {
    let printable = |char: char| if is_confusing(char) { ' ' } else { char };
    let title: String = text.chars().take(MAX_TITLE_CHARS).map(printable).collect();
    let title = title.trim();
    (!title.is_empty()).then(|| title.into())
}

/// Returns `true` for control characters, line separators and marks of the text's direction.
fn is_confusing(char: char) -> bool {
    let is_direction =
        matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char.is_control() || is_direction || matches!(char, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_title_is_cut_between_characters() {
        let long = title(&"é".repeat(MAX_TITLE_CHARS + 1)).expect("a title");
        assert_eq!(*long, *"é".repeat(MAX_TITLE_CHARS));
        let short = "é".repeat(MAX_TITLE_CHARS);
        assert_eq!(title(&short).as_deref(), Some(&*short));
        assert_eq!(title(""), None);
    }

    #[test]
    fn title_has_no_control_characters() {
        let shown = title("a\nreport\u{1b}[2J");
        assert_eq!(shown.as_deref(), Some("a report [2J"));
        let turned = title("a \u{202e}txt.exe\u{2029}");
        assert_eq!(turned.as_deref(), Some("a  txt.exe"));
        assert_eq!(title(" \n\u{2066}"), None);
    }
}
