//! A document in TOML (or, by `document/yaml.rs`, in YAML) whose every value knows where it stands.
//!
//! [`Table`] and [`Value`] carry their dotted path and their place in the text, so whoever finds something
//! wrong turns it into a [`ConfigProblem`] on the spot. They are read key by key rather than through serde,
//! because serde's messages name Rust's types and an operator wants to know what to write.
//! Nothing here knows what the keys mean: the control plane's file and nic-config's are both read by it.

mod yaml;

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::status::ConfigProblem;

/// The text of a document and the name of the file it came from.
#[derive(Clone, Copy)]
pub struct Source<'d> {
    text: &'d str,
    file: &'d str,
    syntax: Syntax,
}

/// How a document is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syntax {
    Toml,
    Yaml,
}

impl<'d> Source<'d> {
    /// A document in TOML, not parsed yet.
    pub fn new(text: &'d str, file: &'d str) -> Self {
        Self { text, file, syntax: Syntax::Toml }
    }

    /// Documents in YAML, not parsed yet.
    pub fn yaml(text: &'d str, file: &'d str) -> Self {
        Self { text, file, syntax: Syntax::Yaml }
    }

    /// A whole document.
    pub fn value(self, raw: &'d Spanned<DeValue<'d>>) -> Value<'d> {
        Value { source: self, raw: raw.get_ref(), span: raw.span(), field: String::new() }
    }

    /// A key and its value, as one writes them.
    fn assigned(&self, key: &str, value: &str) -> String {
        match self.syntax {
            Syntax::Toml => format!("{key} = {value}"),
            Syntax::Yaml => format!("{key}: {value}"),
        }
    }

    /// Parses the TOML syntax.
    pub fn parse(&self) -> Result<Spanned<DeTable<'d>>, ConfigProblem> {
        DeTable::parse(self.text).map_err(|error| self.syntax_problem(&error))
    }

    /// The whole document as a table.
    pub fn root(self, raw: &'d Spanned<DeTable<'d>>) -> Table<'d> {
        Table { source: self, raw: raw.get_ref(), start: raw.span().start, field: String::new() }
    }

    /// A problem at a byte offset.
    pub fn problem(&self, offset: usize, field: &str, reason: impl Into<String>) -> ConfigProblem {
        let (line, column) = position(self.text, offset);
        let field = if field.is_empty() { "-" } else { field };
        let reason = in_one_line(&reason.into());
        ConfigProblem { file: self.file.into(), line, column, field: field.into(), reason }
    }

    fn syntax_problem(&self, error: &toml::de::Error) -> ConfigProblem {
        let span = error.span().unwrap_or_default();
        let message = error.message().replace('\n', " ");
        if message == "duplicate key" {
            let key = self.text.get(span.clone()).unwrap_or_default();
            return self.problem(span.start, key, format!("`{key}` is given twice; keep one of the two"));
        }
        let word = word_around(self.text, span.start);
        let written = &self.text[word.clone()];
        if !UNQUOTED.iter().any(|unquoted| message.starts_with(unquoted)) {
            self.problem(span.start, "", format!("this is not TOML: {message}"))
        } else if written.is_empty() {
            self.problem(span.start, "", "the value is missing; write one after the `=`")
        } else {
            self.problem(word.start, "", format!("text needs quotes; write \"{written}\""))
        }
    }
}

/// With control characters, which names and values may quote, as escapes.
fn in_one_line(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_debug().collect() } else { String::from(c) };
    text.chars().map(shown).collect()
}

/// How the parser begins its message when it met a word without quotes: it takes `native` for the beginning
/// of `nan`, and `10.0.1.11` for a fraction.
const UNQUOTED: [&str; 9] = [
    "string values must be quoted",
    "invalid boolean",
    "invalid date",
    "invalid exponent",
    "invalid float",
    "invalid fraction",
    "invalid integer",
    "invalid mantissa",
    "invalid time",
];

/// The characters around an offset that would be one value if they had quotes.
fn word_around(text: &str, offset: usize) -> Range<usize> {
    let delimits = |c: char| c.is_whitespace() || "=,[]{}\"'#".contains(c);
    let offset = text.floor_char_boundary(offset);
    let before = text[..offset].chars().rev().take_while(|c| !delimits(*c));
    let start = offset - before.map(char::len_utf8).sum::<usize>();
    let end = text[offset..].find(delimits).map_or(text.len(), |length| offset + length);
    start..end
}

/// Line and column, both from 1, of a byte offset; columns count characters.
pub fn position(text: &str, offset: usize) -> (usize, usize) {
    let offset = text.floor_char_boundary(offset);
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let byte_order_mark = '\u{feff}';
    let column = before[line_start..].chars().filter(|&c| c != byte_order_mark).count() + 1;
    (before.bytes().filter(|&b| b == b'\n').count() + 1, column)
}

/// A table with its place.
pub struct Table<'d> {
    source: Source<'d>,
    raw: &'d DeTable<'d>,
    start: usize,
    field: String,
}

impl<'d> Table<'d> {
    /// Refuses the first key in the text that is not among `known`, and names the nearest that is.
    pub fn allow_only(&self, known: &[&str]) -> Result<(), ConfigProblem> {
        let unknown = self.raw.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        let Some(key) = unknown.min_by_key(|key| key.span().start) else { return Ok(()) };
        let name = key.get_ref().as_ref();
        let reason = format!("unknown key `{name}`; {}", hint(name, known));
        Err(self.source.problem(key.span().start, &joined(&self.field, name), reason))
    }

    /// The value of a key, if it is there.
    pub fn optional(&self, key: &str) -> Option<Value<'d>> {
        let raw = self.raw.get(key)?;
        Some(Value {
            source: self.source,
            raw: raw.get_ref(),
            span: raw.span(),
            field: joined(&self.field, key),
        })
    }

    /// The value of a key that must be there; `example` is a value to propose.
    pub fn required(&self, key: &str, example: &str) -> Result<Value<'d>, ConfigProblem> {
        self.optional(key).ok_or_else(|| {
            let reason = format!("`{key}` is missing; add {}", self.source.assigned(key, example));
            self.source.problem(self.start, &joined(&self.field, key), reason)
        })
    }

    /// Keys and values in the order of the text; a key stands for its own place.
    pub fn entries(&self) -> Vec<(Key<'d>, Value<'d>)> {
        let entry = |(key, raw): (&'d Spanned<_>, &'d Spanned<_>)| -> (Key<'d>, Value<'d>) {
            let name: &'d std::borrow::Cow<'d, str> = key.get_ref();
            let field = joined(&self.field, name);
            let key = Key {
                source: self.source,
                name: name.as_ref(),
                start: key.span().start,
                field: field.clone(),
            };
            (key, Value { source: self.source, raw: raw.get_ref(), span: raw.span(), field })
        };
        let mut entries: Vec<_> = self.raw.iter().map(entry).collect();
        entries.sort_by_key(|(key, _)| key.start);
        entries
    }

    /// Has no key.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// A problem with the table as a whole.
    pub fn problem(&self, reason: impl Into<String>) -> ConfigProblem {
        self.source.problem(self.start, &self.field, reason)
    }
}

/// A key that is itself information, such as the name of a pool.
pub struct Key<'d> {
    source: Source<'d>,
    /// The key without quotes.
    pub name: &'d str,
    start: usize,
    field: String,
}

impl Key<'_> {
    /// A problem with the key.
    pub fn problem(&self, reason: impl Into<String>) -> ConfigProblem {
        self.source.problem(self.start, &self.field, reason)
    }
}

/// A value with its place.
#[derive(Clone)]
pub struct Value<'d> {
    source: Source<'d>,
    raw: &'d DeValue<'d>,
    span: Range<usize>,
    field: String,
}

impl<'d> Value<'d> {
    /// A problem with this value.
    pub fn problem(&self, reason: impl Into<String>) -> ConfigProblem {
        self.source.problem(self.span.start, &self.field, reason)
    }

    /// A key and its value, as one writes them here.
    pub fn assigned(&self, key: &str, value: &str) -> String {
        self.source.assigned(key, value)
    }

    /// The line this value begins on, from 1.
    pub fn line(&self) -> usize {
        position(self.source.text, self.span.start).0
    }

    /// Its dotted path.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The text of a string; `None` for a value of another type.
    pub fn text(&self) -> Option<&'d str> {
        match self.raw {
            DeValue::String(text) => Some(text.as_ref()),
            _ => None,
        }
    }

    /// A string; `example` is one to propose, with its quotes.
    pub fn string(&self, example: &str) -> Result<&'d str, ConfigProblem> {
        self.text().ok_or_else(|| self.wrong_type(&format!("text in quotes, such as {example}")))
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Result<bool, ConfigProblem> {
        match self.raw {
            DeValue::Boolean(value) => Ok(*value),
            _ => Err(self.wrong_type("true or false, without quotes")),
        }
    }

    /// A whole number in a range.
    pub fn integer(&self, range: RangeInclusive<u32>) -> Result<u32, ConfigProblem> {
        let (low, high) = (range.start(), range.end());
        let DeValue::Integer(integer) = self.raw else {
            return Err(self.wrong_type(&format!("a whole number from {low} to {high}, without quotes")));
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.problem(format!("{integer} is out of range; write a number from {low} to {high}"))
        })
    }

    /// A string, or a whole number as it is written in decimal.
    pub fn text_or_number(&self) -> Result<String, ConfigProblem> {
        match self.raw {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
            DeValue::Integer(_) => Err(self.problem("write the number in decimal")),
            _ => Err(self.wrong_type("a whole number, or text in quotes")),
        }
    }

    /// One of a few words.
    pub fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, ConfigProblem> {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let one = format!("one of {}", words.join(", "));
        let DeValue::String(written) = self.raw else { return Err(self.wrong_type(&one)) };
        let choice = choices.iter().find(|(word, _)| word == written);
        choice.map(|(_, value)| *value).ok_or_else(|| {
            self.problem(format!("`{}` is not known here; write {one}", written.escape_debug()))
        })
    }

    /// A table; `example` is how to write it.
    pub fn table(&self, example: &str) -> Result<Table<'d>, ConfigProblem> {
        match self.raw {
            DeValue::Table(raw) => {
                Ok(Table { source: self.source, raw, start: self.span.start, field: self.field.clone() })
            }
            _ => Err(self.wrong_type(example)),
        }
    }

    /// The elements of an array; `example` is how to write it.
    pub fn elements(&self, example: &str) -> Result<Vec<Value<'d>>, ConfigProblem> {
        let DeValue::Array(raw) = self.raw else {
            return Err(self.wrong_type(example));
        };
        let element = |(index, raw): (usize, &'d Spanned<DeValue<'d>>)| Value {
            source: self.source,
            raw: raw.get_ref(),
            span: raw.span(),
            field: format!("{}[{index}]", self.field),
        };
        Ok(raw.iter().enumerate().map(element).collect())
    }

    /// The elements of an array that is not empty, or in TOML the value alone if it is not an array.
    pub fn one_or_more(&self, example: &str) -> Result<Vec<Value<'d>>, ConfigProblem> {
        if !self.raw.is_array() && self.source.syntax == Syntax::Toml {
            return Ok(vec![self.clone()]);
        }
        let elements = self.elements(example)?;
        if elements.is_empty() {
            return Err(self.problem(format!("the array is empty; write at least one, such as {example}")));
        }
        Ok(elements)
    }

    fn wrong_type(&self, instead: &str) -> ConfigProblem {
        let found = match self.raw {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(true) => "the word true without quotes",
            DeValue::Boolean(false) => "the word false without quotes",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.problem(format!("this is {found}; write {instead}"))
    }
}

/// What to write instead of a name that is not known: the nearest that is, or all of them.
pub fn hint(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", listed(known)),
    }
}

/// The candidate most like `name`, if one is near enough to be what was meant: few typing errors away, or
/// the longer form of a short one.
pub fn nearest<'c>(name: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let tolerated = (name.chars().count() / 3).clamp(1, 3);
    let distance = |candidate: &&&str| strsim::damerau_levenshtein(name, candidate);
    let near = candidates.iter().min_by_key(distance).filter(|candidate| distance(candidate) <= tolerated);
    let longer = || candidates.iter().find(|candidate| name.len() >= 3 && candidate.starts_with(name));
    near.or_else(longer).copied()
}

/// `` `a`, `b`, `c` ``
fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// A dotted path; a key that TOML wants in quotes keeps them.
fn joined(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let text = "a\nüx = 1\n";
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, 2), (2, 1));
        assert_eq!(position(text, text.find('x').unwrap()), (2, 2));
        assert_eq!(position(text, 999), (3, 1));
        assert_eq!(position("\u{feff}a", 3), (1, 1));
    }

    #[test]
    fn the_nearest_name_is_offered_only_if_near() {
        let known = ["weight", "address", "name"];
        assert_eq!(nearest("wieght", &known), Some("weight"));
        assert_eq!(nearest("nam", &known), Some("name"));
        assert_eq!(nearest("addr", &known), Some("address"));
        assert_eq!(nearest("check", &known), None);
    }

    #[test]
    fn a_number_may_be_meant_as_text() {
        let check = |value: &str| {
            let text = format!("[host]\n\"a.b\" = {value}\n");
            let source = Source::new(&text, "f");
            let raw = source.parse().unwrap();
            let host = source.root(&raw).required("host", "{}").unwrap().table("[host]").unwrap();
            let value = host.required("a.b", "1").unwrap();
            assert_eq!(value.field(), "host.\"a.b\"");
            value.text_or_number().map_err(|problem| problem.to_string())
        };
        for (value, expected) in [("\"4 8\"", "4 8"), ("600", "600"), ("-1", "-1"), ("1_000", "1000")] {
            assert_eq!(check(value).as_deref(), Ok(expected));
        }
        for (value, told) in [
            ("true", "this is the word true without quotes; write a whole number, or text in quotes"),
            ("0x10", "write the number in decimal"),
        ] {
            assert_eq!(check(value), Err(format!("f:2:9: host.\"a.b\": {told}")));
        }
    }

    #[test]
    fn who_is_near_to_nothing_is_told_all_there_is() {
        assert_eq!(hint("nic_", &["nic", "host"]), "did you mean `nic`?");
        assert_eq!(hint("service", &["nic", "host"]), "known here: `nic`, `host`");
    }

    #[test]
    fn a_key_that_is_not_bare_keeps_its_quotes_in_the_path() {
        assert_eq!(joined("pools", "web"), "pools.web");
        assert_eq!(joined("pools", "we b"), "pools.\"we b\"");
        assert_eq!(joined("", "nic"), "nic");
    }
}
