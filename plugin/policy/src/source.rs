//! Positions in the Cedar texts of the configuration.
//!
//! Cedar gives byte offsets; people count lines and characters from one. Not here: what is wrong.

use miette::Diagnostic;

use crate::config::Problem;

/// A Cedar text and where it stands in the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Source<'a> {
    path: String,
    text: &'a str,
}

impl<'a> Source<'a> {
    pub(crate) fn new(path: impl Into<String>, text: &'a str) -> Self {
        Self { path: path.into(), text }
    }

    /// The path of the byte at `offset`, e.g. `policy.schema:3:14`.
    pub(crate) fn path_at(&self, offset: usize) -> String {
        let (line, column) = self.position(offset);
        format!("{}:{line}:{column}", self.path)
    }

    /// Line and column of the byte at `offset`.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    /// The path of the first place that reads `needle`, or of the whole text.
    pub(crate) fn path_of(&self, needle: &str) -> String {
        self.text.find(needle).map_or_else(|| self.path.clone(), |offset| self.path_at(offset))
    }

    /// The path of the place `diagnostic` points at, or of the whole text.
    pub(crate) fn path_of_diagnostic(&self, diagnostic: &dyn Diagnostic) -> String {
        let first = diagnostic.labels().and_then(|mut labels| labels.next());
        first.map_or_else(|| self.path.clone(), |label| self.path_at(label.offset()))
    }
}

/// What `error` says of `source`, as a problem at its place.
pub(crate) fn problem<E>(source: &Source<'_>, error: &E) -> Problem
where
    E: Diagnostic + 'static,
{
    let labels: Vec<String> = error
        .labels()
        .into_iter()
        .flatten()
        .filter_map(|label| label.label().map(str::to_owned))
        .collect();
    let mut message = crate::catalog::full_message(error);
    if !labels.is_empty() {
        message = format!("{message} ({})", labels.join("; "));
    }
    Problem {
        path: source.path_of_diagnostic(error),
        message,
        help: error.help().map(|help| help.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let source = Source::new("p", "a\nbä c\n");
        assert_eq!(source.path_at(0), "p:1:1");
        assert_eq!(source.path_at(2), "p:2:1");
        assert_eq!(source.path_of("c"), "p:2:4");
        assert_eq!(source.path_at(1000), "p:3:1");
        assert_eq!(source.path_of("x"), "p");
    }
}
