//! The tree as the checks see it: all source files, with comments and literals blanked where that matters.

use std::path::{Path, PathBuf};

/// A Rust file of the tree.
pub struct Source {
    /// Path from the root of the workspace, with `/`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// The same length in lines, with comments and the content of string and char literals replaced by spaces.
    pub code: String,
}

impl Source {
    /// Line numbers (from 1) and text of the lines of code that contain `word` as a whole word.
    pub fn lines_with<'a>(&'a self, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> + 'a {
        self.code.lines().enumerate().filter(move |(_, line)| has_word(line, word)).map(|(at, line)| (at + 1, line))
    }

    /// The code before the first test module. By convention tests are the end of a file or a file of their own.
    pub fn code_without_tests(&self) -> &str {
        if self.path.ends_with("_test.rs") || self.path.contains("/tests/") || self.path.starts_with("tests/") {
            return "";
        }
        match self.code.find("#[cfg(test)]") {
            Some(end) => &self.code[..end],
            None => &self.code,
        }
    }

    /// Written by a generator.
    pub fn is_generated(&self) -> bool {
        self.path.contains("/generated/") || self.path.ends_with("/generated.rs")
    }
}

/// Whether `line` contains `word` with no letter, digit or underscore beside it.
pub fn has_word(line: &str, word: &str) -> bool {
    let edge = |character: Option<char>| !character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word)
        .any(|(at, _)| edge(line[..at].chars().next_back()) && edge(line[at + word.len()..].chars().next()))
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate lies two folders below the root").to_path_buf()
}

/// Every Rust file under `folder` (from the root), sorted by path. Build output is left out.
pub fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), &root().join(folder), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != "data" && !name.starts_with('.') {
                collect(root, &path, found);
            }
        } else if name.ends_with(".rs")
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
            let code = blank(&text);
            found.push(Source { path, text, code });
        }
    }
}

/// Replaces comments and the content of literals by spaces; line breaks stay.
pub fn blank(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let space = |out: &mut String, c: char| out.push(if c == '\n' { '\n' } else { ' ' });
    while at < bytes.len() {
        let next = bytes.get(at + 1).copied();
        match bytes[at] {
            '/' if next == Some('/') => {
                while at < bytes.len() && bytes[at] != '\n' {
                    out.push(' ');
                    at += 1;
                }
            }
            '/' if next == Some('*') => {
                let mut depth = 0;
                loop {
                    if at >= bytes.len() {
                        break;
                    }
                    let pair = (bytes[at], bytes.get(at + 1).copied());
                    let step = match pair {
                        ('/', Some('*')) => {
                            depth += 1;
                            2
                        }
                        ('*', Some('/')) => {
                            depth -= 1;
                            2
                        }
                        _ => 1,
                    };
                    for _ in 0..step {
                        space(&mut out, bytes[at]);
                        at += 1;
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            'r' if is_raw_string(&bytes, at) => {
                let hashes = bytes[at + 1..].iter().take_while(|&&c| c == '#').count();
                let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                let mut end = at + 2 + hashes;
                while end < bytes.len() && !bytes[end..].starts_with(&close) {
                    end += 1;
                }
                end = (end + close.len()).min(bytes.len());
                while at < end {
                    space(&mut out, bytes[at]);
                    at += 1;
                }
            }
            '"' => {
                out.push('"');
                at += 1;
                while at < bytes.len() && bytes[at] != '"' {
                    if bytes[at] == '\\' && at + 1 < bytes.len() {
                        space(&mut out, bytes[at]);
                        at += 1;
                    }
                    space(&mut out, bytes[at]);
                    at += 1;
                }
                if at < bytes.len() {
                    out.push('"');
                    at += 1;
                }
            }
            // A char literal, but not a lifetime.
            '\'' if next == Some('\\') || bytes.get(at + 2) == Some(&'\'') => {
                let skip = if next == Some('\\') { 2 } else { 1 };
                let end = (at + 1 + skip..bytes.len()).find(|&i| bytes[i] == '\'').unwrap_or(bytes.len() - 1);
                while at <= end {
                    space(&mut out, bytes[at]);
                    at += 1;
                }
            }
            character => {
                out.push(character);
                at += 1;
            }
        }
    }
    out
}

fn is_raw_string(bytes: &[char], at: usize) -> bool {
    let before = at.checked_sub(1).map(|i| bytes[i]);
    if before.is_some_and(|c| (c.is_alphanumeric() || c == '_') && c != 'b') {
        return false;
    }
    let hashes = bytes[at + 1..].iter().take_while(|&&c| c == '#').count();
    bytes.get(at + 1 + hashes) == Some(&'"')
}
