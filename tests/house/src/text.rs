//! Rules on lines of text: their width, and the words of comments.

use std::collections::BTreeMap;

use crate::{Checkout, Offence};

/// The folders with Rust code.
pub(crate) const CODE: &[&str] = &["src", "tests", "benches", "examples"];

const MAX_COLUMNS: usize = 100;

pub(crate) fn width(checkout: &Checkout) -> Vec<Offence> {
    let mut offences = Vec::new();
    for (path, text) in checkout.all().filter(|(path, _)| !path.ends_with(".toml")) {
        for (index, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > MAX_COLUMNS
                && !is_table_row(line)
                && without_links(line).chars().count() > MAX_COLUMNS
            {
                let text = format!("{columns} columns: break the line, {MAX_COLUMNS} fit");
                offences.push(Offence::new(path, index + 1, text));
            }
        }
    }
    offences
}

fn is_table_row(line: &str) -> bool {
    line.trim_start()
        .trim_start_matches(['/', '!'])
        .trim_start()
        .starts_with('|')
}

/// Returns the line without URLs and without targets of links, which cannot be broken.
fn without_links(line: &str) -> String {
    let mut rest = line;
    let mut kept = String::new();
    while let Some((at, ends)) = ["https://", "http://", "](", "]: "]
        .iter()
        .filter_map(|start| Some((rest.find(start)?, *start)))
        .min()
        .map(|(at, start)| match start {
            "](" => (at + 2, &[')'][..]),
            "]: " => (at + 3, &[][..]),
            _ => (at, &[' ', ')', '>', '"', '`'][..]),
        })
    {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = rest.find(ends).map_or("", |end| &rest[end..]);
    }
    kept + rest
}

/// Words that stand in for a subject, and phrases of written English only.
const STUMBLES: &[&str] = &[
    "who",
    "whom",
    "whoever",
    "nobody",
    "somebody",
    "anybody",
    "so that not",
    "but for",
    "is to be",
    "are to be",
    "is told",
    "are told",
    "thereof",
    "whereof",
];

/// A folder may have three stumbles in a hundred lines of prose.
const PROSE_LINES: usize = 100;
const MAX_STUMBLES: usize = 3;

pub(crate) fn prose(checkout: &Checkout) -> Vec<Offence> {
    // The number of lines, and the offences.
    let mut folders = BTreeMap::<&str, (usize, Vec<Offence>)>::new();
    for (path, text) in checkout.all() {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let (lines, offences) = folders.entry(folder).or_default();
        for (number, line) in prose_lines(path, text) {
            *lines += 1;
            let words = format!(" {} ", words(line));
            if let Some(found) = STUMBLES
                .iter()
                .find(|word| words.contains(&format!(" {word} ")))
            {
                let text = format!("`{found}`: name the subject, in plain English");
                offences.push(Offence::new(path, number, text));
            }
        }
    }
    folders
        .into_values()
        .filter(|(lines, offences)| {
            offences.len() * PROSE_LINES > MAX_STUMBLES * (*lines).max(PROSE_LINES)
        })
        .flat_map(|(_, offences)| offences)
        .collect()
}

/// Iterates over the numbered lines of comments, or of Markdown outside code.
fn prose_lines<'a>(path: &str, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let rust = path.ends_with(".rs");
    let markdown = path.ends_with(".md");
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let mut line = line.trim();
        if rust {
            line = line
                .strip_prefix("//")?
                .trim_start_matches(['/', '!'])
                .trim();
        } else if !markdown {
            return None;
        }
        if line.starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced && !line.is_empty()).then_some((index + 1, line))
    })
}

/// Returns the words in lower case with single spaces between them.
fn words(line: &str) -> String {
    let words: Vec<_> = line
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    words.join(" ")
}
