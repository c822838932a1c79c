//! Writing for people: colours where they are wanted, and nothing that a terminal would obey.
//!
//! Not here: what is written.

use std::io::{self, Write};

use serde::Serialize;

/// What a colour means here.
#[derive(Clone, Copy)]
pub(crate) enum Colour {
    /// As it should be.
    Green,
    /// Wrong, denied, failed.
    Red,
    /// To be looked at.
    Yellow,
}

/// Where text for people goes.
pub(crate) struct Terminal<'a> {
    colours: bool,
    output: &'a mut dyn Write,
}

impl<'a> Terminal<'a> {
    /// Writes to `output`, with `colours` or without.
    pub(crate) fn new(output: &'a mut dyn Write, colours: bool) -> Self {
        Self { colours, output }
    }

    /// Writes one line. `text` may hold what [`Terminal::coloured`] returns; text of others must have
    /// gone through [`plain`].
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.output, "{text}")
    }

    /// Writes a document of ours that is meant for a file.
    pub(crate) fn document(&mut self, text: &str) -> io::Result<()> {
        self.output.write_all(text.as_bytes())
    }

    /// Writes `label` and lines of text of others: `first` goes before the first, `rest` before the
    /// others.
    pub(crate) fn indented(
        &mut self,
        first: &str,
        label: &str,
        rest: &str,
        text: &str,
    ) -> io::Result<()> {
        text.lines().enumerate().try_for_each(|(index, line)| {
            let indent = if index == 0 { first } else { rest };
            let label = if index == 0 { label } else { "" };
            writeln!(self.output, "{indent}{label}{}", plain(line))
        })
    }

    /// `text` of ours in a colour, if colours are wanted.
    pub(crate) fn coloured(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => "32",
            Colour::Red => "31",
            Colour::Yellow => "33",
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Text of others, harmless to a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Writes one JSON document.
pub(crate) fn write_json(document: &impl Serialize, output: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *output, document)?;
    writeln!(output)
}

/// <https://no-color.org>
pub(crate) fn colours_are_wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}
