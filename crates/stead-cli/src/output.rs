//! What the command prints: tables for people, JSON for programs, and a word on standard error.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use crate::ending::{Ending, Failure};

/// Whether what is printed there may have colours: on a terminal, unless `NO_COLOR` says otherwise.
fn colours(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// How a piece of text stands out, where colours may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// A heading.
    Heading,
    /// The names of columns.
    Quiet,
    /// As it should be.
    Good,
    /// Worth a look.
    Notable,
    /// Missing.
    Bad,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Heading => "\x1b[1m",
            Self::Quiet => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Notable => "\x1b[33m",
            Self::Bad => "\x1b[31m",
        }
    }
}

/// One cell of a table.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// With a style. Names are other people's to choose: no control character of them reaches a terminal.
    pub fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: printable(text.as_ref()).into_owned(), style }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::Plain)
    }
}

/// What is not shown as itself, as escapes: control characters, and format characters, which reorder or hide what stands
/// beside them (CWE-150, CVE-2021-42574).
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_shown) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for one in text.chars() {
        if is_shown(one) { out.push(one) } else { out.extend(one.escape_default()) }
    }
    out.into()
}

/// Whether a character is shown as itself, where it stands behind another.
fn is_shown(one: char) -> bool {
    if one.is_ascii() {
        return !one.is_ascii_control();
    }
    // A mark that is combined with the letter before it is escaped where it stands alone.
    let mut behind = [b'a', 0, 0, 0, 0];
    let length = one.encode_utf8(&mut behind[1..]).len();
    std::str::from_utf8(&behind[..=length]).is_ok_and(|both| both.escape_debug().count() == 2)
}

/// The same for a text of several lines.
pub fn printable_lines(text: &str) -> String {
    text.split_inclusive('\n').fold(String::with_capacity(text.len()), |mut out, line| {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        out.push_str(&printable(line));
        out.push_str(end);
        out
    })
}

/// A table with a heading above and names of columns, both of which may be absent.
#[derive(Debug, Clone, Default)]
pub struct Table {
    heading: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty one. A heading, too, may be a name that somebody else chose.
    pub fn new(heading: &str, columns: &[&'static str]) -> Self {
        Self { heading: printable(heading).into_owned(), columns: columns.to_vec(), rows: Vec::new() }
    }

    /// One more line.
    pub fn row<const N: usize>(&mut self, cells: [impl Into<Cell>; N]) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    fn write(&self, out: &mut String, coloured: bool) {
        let paint = |out: &mut String, text: &str, style: Style, width: usize| {
            let wide = text.chars().count();
            if coloured && style != Style::Plain {
                let _ = write!(out, "{}{text}\x1b[0m", style.code());
            } else {
                out.push_str(text);
            }
            out.extend(std::iter::repeat_n(' ', width.saturating_sub(wide)));
        };
        let indent = if self.heading.is_empty() { "" } else { "  " };
        if !self.heading.is_empty() {
            paint(out, &self.heading, Style::Heading, 0);
            out.push('\n');
        }
        let mut widths: Vec<usize> = self.columns.iter().map(|name| name.len()).collect();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            // Nothing stands behind the last one.
            let padded = row.len().saturating_sub(1);
            for (width, cell) in widths.iter_mut().zip(&row[..padded]) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let mut line = |cells: &mut dyn Iterator<Item = (&str, Style)>| {
            out.push_str(indent);
            let mut cells = cells.zip(&widths).peekable();
            while let Some(((text, style), width)) = cells.next() {
                let last = cells.peek().is_none();
                paint(out, text, style, if last { 0 } else { *width + 2 });
            }
            while out.ends_with(' ') {
                out.pop();
            }
            out.push('\n');
        };
        if !self.columns.is_empty() {
            line(&mut self.columns.iter().map(|name| (*name, Style::Quiet)));
        }
        for row in &self.rows {
            line(&mut row.iter().map(|cell| (cell.text.as_str(), cell.style)));
        }
    }
}

/// Prints tables, with a line between them.
pub fn tables(tables: &[Table]) -> Result<Ending, Failure> {
    let coloured = colours(&io::stdout());
    let mut text = String::new();
    for table in tables {
        if !text.is_empty() {
            text.push('\n');
        }
        table.write(&mut text, coloured);
    }
    page(&text)
}

/// Prints a table; one without a row only says so.
#[cfg(unix)]
pub fn list(table: Table, empty: &str) -> Result<Ending, Failure> {
    if table.rows.is_empty() { page(&format!("{empty}\n")) } else { tables(&[table]) }
}

/// How many of something there are, in words.
#[cfg(unix)]
pub fn count(number: u64, one: &str) -> String {
    let end = match (number, one.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{number} {one}{end}")
}

/// Prints one value as JSON.
pub fn json(value: &serde_json::Value) -> Result<Ending, Failure> {
    let mut text = printable_json(&serde_json::to_string_pretty(value).map_err(Failure::new)?);
    text.push('\n');
    page(&text)
}

/// JSON that says the same, with escapes for what is not shown as itself: it leaves all but the first 32 characters as
/// they are.
pub fn printable_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        // Its own lines; and nothing but a string has any other.
        if one == '\n' || is_shown(one) {
            out.push(one);
        } else {
            for unit in one.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// Prints text on standard output. Where its reader has gone (`| head`), ends as any other program would.
pub fn page(text: &str) -> Result<Ending, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Ending::GOOD),
        #[cfg(unix)]
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            // SIGPIPE, which Rust's start ignores.
            Ok(Ending::Signal(13))
        }
        Err(error) => Err(Failure::new(format_args!("writing to standard output: {error}"))),
    }
}

/// A word on standard error, where it can be said.
pub fn complain(what: &str) {
    let mut err = io::stderr().lock();
    let name = if colours(&err) { "\x1b[1mstead:\x1b[0m" } else { "stead:" };
    // Names are other people's to choose.
    let _ = writeln!(err, "{name} {}", printable_lines(what));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_cursor_or_reorders_text_is_shown_as_an_escape() {
        for hidden in [
            '\0',
            '\n',
            '\t',
            '\x1b',
            '\x7f',
            '\u{85}',
            '\u{9b}', // control characters
            '\u{202a}',
            '\u{202b}',
            '\u{202c}',
            '\u{202d}',
            '\u{202e}', // embeddings and overrides
            '\u{2066}',
            '\u{2067}',
            '\u{2068}',
            '\u{2069}',
            '\u{200e}',
            '\u{200f}',
            '\u{61c}', // isolates, marks
            '\u{200b}',
            '\u{200d}',
            '\u{2060}',
            '\u{feff}',
            '\u{ad}',
            '\u{e0041}', // not shown at all
            '\u{2028}',
            '\u{2029}',
            '\u{a0}',
            '\u{3000}',
            '\u{e000}',
            '\u{10ffff}',
            '\u{fff9}', // others
        ] {
            let text = format!("re{hidden}port");
            assert_eq!(printable(&text), format!("re{}port", hidden.escape_default()));
        }
        for shown in [
            "/usr/bin/report --today",
            r#"a\b "c" 'd'"#,
            "Zoë Müller",
            "Zoe\u{308}",
            "山田 太郎",
            "שלום",
            "→ ✓",
        ] {
            assert_eq!(printable(shown), shown);
        }
        assert_eq!(printable_lines("one\ntwo\u{202e}\n"), "one\ntwo\\u{202e}\n");
    }

    #[test]
    fn json_says_the_same_and_shows_no_control_or_format_character() {
        let value = serde_json::json!({ "na\u{9b}me": ["\0\n\x1b\x7f\u{85}\u{9b}31m\u{202e}\u{e0041}", "Zoë → \\ \"山田\""] });
        let text = printable_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(text.lines().all(|line| printable(line) == line), "{text}");
        assert!(text.contains("\\u009b31m") && text.contains("Zoë → "), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[cfg(unix)]
    #[test]
    fn of_one_thing_there_is_one() {
        let counts = [count(0, "session"), count(1, "session"), count(2, "process"), count(1, "process")];
        assert_eq!(counts, ["0 sessions", "1 session", "2 processes", "1 process"]);
    }
}
