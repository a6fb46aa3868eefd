//! The repository as text: sources, manifests, documents.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::source::Source;

/// A broken rule and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    pub(crate) path: String,
    /// 0 for the file as a whole.
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// What the checks look at.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) sources: Vec<Source>,
    pub(crate) manifests: Vec<Manifest>,
    /// Every other text by its path: documents, the licence, settings of tools.
    pub(crate) texts: BTreeMap<String, String>,
    /// Paths of all files, read or not.
    pub(crate) paths: Vec<String>,
}

impl Tree {
    /// Reads the repository at `root`.
    pub(crate) fn read(root: &Path) -> Self {
        let mut files = Vec::new();
        walk(root, root, &mut files);
        files.sort();
        let mut tree = Self::default();
        for path in files {
            if is_text(&path) {
                let text =
                    std::fs::read_to_string(root.join(&path)).unwrap_or_else(|e| panic!("{path}: {e}"));
                tree.add(&path, &text);
            } else {
                tree.paths.push(path);
            }
        }
        tree
    }

    /// A small repository for the tests of the checks.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.add(path, text);
        }
        tree
    }

    fn add(&mut self, path: &str, text: &str) {
        self.paths.push(path.to_owned());
        if path.ends_with(".rs") {
            self.sources.push(Source::parse(path, text).unwrap_or_else(|error| panic!("{error}")));
        } else if path == "Cargo.toml" || path.ends_with("/Cargo.toml") {
            self.manifests.push(Manifest::parse(path, text));
        } else {
            self.texts.insert(path.to_owned(), text.to_owned());
        }
    }

    pub(crate) fn manifest(&self, path: &str) -> Option<&Manifest> {
        self.manifests.iter().find(|manifest| manifest.path == path)
    }

    /// Sources of the crate in `folder`, with the module path of each.
    pub(crate) fn crate_sources(&self, folder: &str) -> impl Iterator<Item = (&Source, Vec<String>)> {
        let prefix = format!("{folder}/src/");
        self.sources.iter().filter_map(move |source| {
            let inside = source.path.strip_prefix(&prefix)?;
            Some((source, module_path(inside)))
        })
    }
}

/// `transport/quic.rs` is `["transport", "quic"]`, `transport/mod.rs` is `["transport"]`, `lib.rs` is `[]`.
fn module_path(inside: &str) -> Vec<String> {
    let mut path: Vec<String> = inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let last = path.last().map(String::as_str);
    if last == Some("mod") || (path.len() == 1 && matches!(last, Some("lib" | "main"))) {
        path.pop();
    }
    path
}

fn is_text(path: &str) -> bool {
    [".rs", ".toml", ".md"].iter().any(|end| path.ends_with(end)) || path == "LICENSE"
}

fn walk(root: &Path, folder: &Path, out: &mut Vec<String>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            let skipped = ["target", ".git", "corpus", "artifacts"].contains(&name);
            if !skipped {
                walk(root, &path, out);
            }
        } else if let Some(inside) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            out.push(inside.replace('\\', "/"));
        }
    }
}

/// A Cargo manifest, as far as the checks need it.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) path: String,
    pub(crate) entries: Vec<Entry>,
}

/// `key = value` below `[section]`; the value as text, arrays of several lines joined.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) section: String,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) line: usize,
}

impl Manifest {
    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let mut section = String::new();
        let mut entries: Vec<Entry> = Vec::new();
        let mut open = false;
        for (index, raw) in text.lines().enumerate() {
            let line = without_comment(raw).trim();
            if open {
                let entry = entries.last_mut().expect("an open value has an entry");
                entry.value.push_str(line);
                open = is_open(&entry.value);
            } else if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.trim_matches(['[', ']']).to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
                open = is_open(&value);
                entries.push(Entry { section: section.clone(), key, value, line: index + 1 });
            }
        }
        Self { path: path.to_owned(), entries }
    }

    /// The folder of the package, empty for the root.
    pub(crate) fn folder(&self) -> &str {
        self.path.trim_end_matches("Cargo.toml").trim_end_matches('/')
    }

    pub(crate) fn get(&self, section: &str, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.section == section && entry.key == key)
    }

    /// Dependencies: the kind of table, the package's name, its entry. `[dependencies.x]` counts as well.
    pub(crate) fn dependencies(&self) -> impl Iterator<Item = (&str, &str, &Entry)> {
        self.entries.iter().filter_map(|entry| {
            let kinds = ["dev-dependencies", "build-dependencies", "dependencies"];
            let kind = kinds.into_iter().find(|kind| {
                let section = entry.section.as_str();
                section == *kind
                    || section.ends_with(&format!(".{kind}"))
                    || section.starts_with(&format!("{kind}."))
                    || section.contains(&format!(".{kind}."))
            })?;
            let name = match entry.section.rsplit_once(&format!("{kind}.")) {
                Some((_, name)) => name,
                None => entry.key.split('.').next().unwrap_or_default(),
            };
            Some((kind, name, entry))
        })
    }
}

fn is_open(value: &str) -> bool {
    value.matches(['[', '{']).count() > value.matches([']', '}']).count()
}

fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

/// The strings of an array or of one value: `["a", "b"]` gives `a` and `b`.
pub(crate) fn strings(value: &str) -> Vec<&str> {
    value.split('"').skip(1).step_by(2).collect()
}
