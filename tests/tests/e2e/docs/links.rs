//! Every relative link leads to a file of the repository, and its anchor to a heading; the book has every page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Page, pages, root};

/// Returns the anchor of a heading, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Returns the anchors of a page. The second heading of the same text gets `-1`, and so on.
fn anchors(page: &Page) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = page.prose().into_iter().filter(|(_, line)| line.starts_with('#'));
    headings
        .map(|(_, line)| {
            let anchor = anchor(line);
            let times = seen.entry(anchor.clone()).or_default();
            *times += 1;
            if *times == 1 { anchor } else { format!("{anchor}-{}", *times - 1) }
        })
        .collect()
}

/// Returns the targets of the links of a line. Code between backticks has none.
fn targets(line: &str) -> Vec<&str> {
    let without_code = line.split('`').step_by(2);
    without_code.flat_map(|part| part.split("](").skip(1).filter_map(|rest| rest.split(')').next())).collect()
}

/// Returns the path with `..` resolved.
fn resolved(path: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                whole.pop();
            }
            std::path::Component::CurDir => {}
            other => whole.push(other),
        }
    }
    whole
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let anchors: BTreeMap<&Path, BTreeSet<String>> =
        pages.iter().map(|page| (page.path.as_path(), anchors(page))).collect();
    let mut broken = Vec::new();
    let mut checked = 0;
    for page in &pages {
        for (number, line) in page.prose() {
            for target in targets(line) {
                if target.starts_with("https://") || target.starts_with("http://") || target.starts_with("mailto:") {
                    continue;
                }
                checked += 1;
                let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
                let path = match file {
                    "" => page.path.clone(),
                    file => resolved(&page.path.parent().unwrap().join(file)),
                };
                let has_anchor = || anchors.get(path.as_path()).is_some_and(|known| known.contains(fragment));
                if !path.exists() || !path.starts_with(root()) || !(fragment.is_empty() || has_anchor()) {
                    broken.push(format!("{}:{number}: {target}", page.name()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
    assert!(checked > 100, "links are found: {checked}");
}

#[test]
fn the_book_has_every_page_once() {
    let docs = root().join("docs");
    let summary =
        Page { path: docs.join("SUMMARY.md"), text: std::fs::read_to_string(docs.join("SUMMARY.md")).unwrap() };
    let mut listed: Vec<PathBuf> = summary
        .prose()
        .into_iter()
        .flat_map(|(_, line)| targets(line).into_iter().map(|target| docs.join(target)).collect::<Vec<_>>())
        .collect();
    listed.sort();
    let all: Vec<PathBuf> = pages().into_iter().map(|page| page.path).collect();
    let all: Vec<PathBuf> = all.into_iter().filter(|path| path.starts_with(&docs) && *path != summary.path).collect();
    assert_eq!(listed, all, "docs/SUMMARY.md lists each page of docs/ once");
}

#[test]
fn anchors_are_those_of_github() {
    for (heading, expected) in [
        ("## `usher_users`", "usher_users"),
        ("### A message to Slack", "a-message-to-slack"),
        ("# Keys: a, b", "keys-a-b"),
        ("## `USHER_DELIVER_ONLY_TO`", "usher_deliver_only_to"),
    ] {
        assert_eq!(anchor(heading), expected);
    }
    assert_eq!(targets("see [a](b.md#c), `[x](y)` and [`d`](../e)"), ["b.md#c", "../e"]);
}
