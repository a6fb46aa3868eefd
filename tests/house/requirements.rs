//! The requirements of docs/WIRE.md: each has one number and a test that is there. So has each limit of docs/LIMITS.md.

use std::collections::BTreeSet;

use super::source::Source;
use super::tree::{Tree, Violation};

const PAGE: &str = "docs/WIRE.md";
const LIMITS: &str = "docs/LIMITS.md";

/// Every MUST has a number, every number one row in the table, every row tests that exist.
pub(crate) fn tested(tree: &Tree) -> Vec<Violation> {
    let Some(text) = tree.texts.get(PAGE) else { return Vec::new() };
    let tests: BTreeSet<&str> = tree.sources.iter().flat_map(Source::test_names).collect();
    let mut found = Vec::new();
    let mut add = |line: usize, what: String| found.push(Violation { path: PAGE.to_owned(), line, what });
    let mut numbers = BTreeSet::new();
    let lines = || text.lines().enumerate().map(|(index, line)| (index + 1, line));
    for (line, row) in lines().filter_map(|(line, text)| Some((line, row_of(text)?))) {
        let [number, rule, names] = row;
        if !numbers.insert(number) {
            add(line, format!("{number} stands here a second time"));
        }
        if musts(rule) == 0 {
            add(line, format!("{number} requires nothing: it has no MUST"));
        }
        let names: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            add(line, format!("{number} has no test"));
        }
        for name in names.into_iter().filter(|name| !tests.contains(name)) {
            add(line, format!("{number} names the test `{name}`, which does not exist"));
        }
    }
    for (line, text) in lines().filter(|(_, text)| row_of(text).is_none()) {
        let named: Vec<&str> = text.split("[W-").skip(1).filter_map(|rest| rest.split(']').next()).collect();
        if musts(text) > named.len() {
            add(line, "a MUST without its number in brackets".to_owned());
        }
        for number in named.into_iter().filter(|number| !numbers.contains(format!("W-{number}").as_str())) {
            add(line, format!("[W-{number}] stands for no row of the table"));
        }
    }
    if numbers.is_empty() {
        add(0, "there is no requirement in it".to_owned());
    }
    found
}

/// `| W-1 | rule | tests |`
fn row_of(line: &str) -> Option<[&str; 3]> {
    let mut cells = line.strip_prefix("| W-")?.split(" | ");
    let number = &line[2..2 + "W-".len() + cells.next()?.len()];
    Some([number, cells.next()?, cells.next()?])
}

fn musts(text: &str) -> usize {
    text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| *word == "MUST").count()
}

/// Every row of a table whose last column is the test names tests that exist.
pub(crate) fn reached(tree: &Tree) -> Vec<Violation> {
    let Some(text) = tree.texts.get(LIMITS) else { return Vec::new() };
    let tests: BTreeSet<&str> = tree
        .sources
        .iter()
        .flat_map(|source| source.test_names().into_iter().chain(source.mounted()))
        .collect();
    let mut found = Vec::new();
    let mut add = |line: usize, what: String| found.push(Violation { path: LIMITS.to_owned(), line, what });
    let (mut in_table, mut rows) = (false, 0);
    for (line, text) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        let Some(row) = text.strip_prefix('|') else {
            in_table = false;
            continue;
        };
        let cells: Vec<&str> = row.trim_end_matches('|').split(" | ").map(str::trim).collect();
        let last = cells.last().copied().unwrap_or_default();
        if last == "test" {
            in_table = true;
        } else if cells[0] == "limit" {
            add(line, "a table of limits without a column for the test".to_owned());
        } else if in_table && !row.starts_with("---") {
            rows += 1;
            let names: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
            if names.is_empty() {
                add(line, format!("no test reaches the limit: {}", cells[0]));
            }
            for name in names.into_iter().filter(|name| !tests.contains(name)) {
                add(line, format!("the test `{name}` does not exist"));
            }
        }
    }
    if rows == 0 {
        add(0, "there is no limit in it".to_owned());
    }
    found
}
