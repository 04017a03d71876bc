//! A TOML document whose every value knows where it stands, so that whatever is wrong is told with line,
//! column and field, and with what to write instead. Nothing here knows what the keys mean.
//!
//! The control plane reads its own file in the same way; this program imports nothing of the others, and its
//! keys are numbers, switches and lists only.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {field}: {reason}")]
pub struct Problem {
    /// As it was named.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Dotted path, `-` if there is none.
    pub field: String,
    /// What is wrong and what to write.
    pub reason: String,
}

/// A document's text and name.
#[derive(Clone, Copy)]
pub struct Source<'d> {
    /// The document.
    pub text: &'d str,
    /// The file it came from.
    pub file: &'d str,
}

impl<'d> Source<'d> {
    /// Parses the syntax.
    pub fn parse(self) -> Result<Spanned<DeTable<'d>>, Problem> {
        DeTable::parse(self.text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            let message = error.message().replace('\n', " ");
            if message == "duplicate key" {
                let key = &self.text[span.clone()];
                return self.problem(span.start, key, format!("`{key}` is given twice; keep one of the two"));
            }
            self.problem(span.start, "-", format!("this is not TOML: {message}; text needs quotes"))
        })
    }

    /// The whole document.
    pub fn root(self, raw: &'d Spanned<DeTable<'d>>) -> Table<'d> {
        Table { source: self, raw: raw.get_ref(), start: raw.span().start, field: String::new() }
    }

    fn problem(self, offset: usize, field: &str, reason: impl Into<String>) -> Problem {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line = before.rsplit('\n').next().unwrap_or_default();
        Problem {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
            field: field.to_owned(),
            reason: reason.into(),
        }
    }
}

/// A table with its place.
pub struct Table<'d> {
    source: Source<'d>,
    raw: &'d DeTable<'d>,
    start: usize,
    field: String,
}

impl<'d> Table<'d> {
    /// Refuses the first key that is not among these, and names the nearest that is.
    pub fn allow_only(&self, known: &[&str]) -> Result<(), Problem> {
        let unknown = self.raw.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        let Some(key) = unknown.min_by_key(|key| key.span().start) else { return Ok(()) };
        let name = key.get_ref().as_ref();
        let reason = format!("unknown key `{name}`; {}", hint(name, known));
        Err(self.source.problem(key.span().start, &joined(&self.field, name), reason))
    }

    /// The value of a key, if it is there.
    pub fn optional(&self, key: &str) -> Option<Value<'d>> {
        let raw = self.raw.get(key)?;
        Some(self.value(key, raw))
    }

    /// The value of a key that must be there; `example` is how to write it.
    pub fn required(&self, key: &str, example: &str) -> Result<Value<'d>, Problem> {
        self.optional(key).ok_or_else(|| {
            let reason = format!("`{key}` is missing; add {key} = {example}");
            self.source.problem(self.start, &joined(&self.field, key), reason)
        })
    }

    /// Keys and values in the order of the text.
    pub fn entries(&self) -> Vec<(&'d str, Value<'d>)> {
        let mut entries: Vec<_> = self.raw.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
            .into_iter()
            .map(|(key, raw)| (key.get_ref().as_ref(), self.value(key.get_ref(), raw)))
            .collect()
    }

    fn value(&self, key: &str, raw: &'d Spanned<DeValue<'d>>) -> Value<'d> {
        Value { source: self.source, raw: raw.get_ref(), span: raw.span(), field: joined(&self.field, key) }
    }
}

/// A value with its place.
pub struct Value<'d> {
    source: Source<'d>,
    raw: &'d DeValue<'d>,
    span: Range<usize>,
    field: String,
}

impl<'d> Value<'d> {
    /// A problem with it.
    pub fn problem(&self, reason: impl Into<String>) -> Problem {
        self.source.problem(self.span.start, &self.field, reason)
    }

    /// The line it begins on.
    pub fn line(&self) -> usize {
        self.problem("").line
    }

    /// Its dotted path.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// A text; `example` has quotes.
    pub fn text(&self, example: &str) -> Result<&'d str, Problem> {
        match self.raw {
            DeValue::String(text) => Ok(text.as_ref()),
            _ => Err(self.wrong_type(&format!("text in quotes, such as {example}"))),
        }
    }

    /// A text or a whole number, as text.
    pub fn text_or_number(&self) -> Result<String, Problem> {
        match self.raw {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
            _ => Err(self.wrong_type("a whole number, or text in quotes")),
        }
    }

    /// `true` or `false`.
    pub fn switch(&self) -> Result<bool, Problem> {
        match self.raw {
            DeValue::Boolean(on) => Ok(*on),
            _ => Err(self.wrong_type("true or false, without quotes")),
        }
    }

    /// A whole number in a range.
    pub fn number(&self, range: &RangeInclusive<u32>) -> Result<u32, Problem> {
        let (low, high) = (range.start(), range.end());
        let DeValue::Integer(integer) = self.raw else {
            return Err(self.wrong_type(&format!("a whole number from {low} to {high}, without quotes")));
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.problem(format!("{integer} is out of range; write a number from {low} to {high}"))
        })
    }

    /// A table; `example` is how to write it.
    pub fn table(&self, example: &str) -> Result<Table<'d>, Problem> {
        match self.raw {
            DeValue::Table(raw) => {
                Ok(Table { source: self.source, raw, start: self.span.start, field: self.field.clone() })
            }
            _ => Err(self.wrong_type(example)),
        }
    }

    /// The elements of an array; `example` is how to write it.
    pub fn elements(&self, example: &str) -> Result<Vec<Self>, Problem> {
        let DeValue::Array(raw) = self.raw else { return Err(self.wrong_type(example)) };
        let element = |(index, raw): (usize, &'d Spanned<DeValue<'d>>)| Self {
            source: self.source,
            raw: raw.get_ref(),
            span: raw.span(),
            field: format!("{}[{index}]", self.field),
        };
        Ok(raw.iter().enumerate().map(element).collect())
    }

    fn wrong_type(&self, instead: &str) -> Problem {
        self.problem(format!("this is a TOML {}; write {instead}", self.raw.type_str()))
    }
}

/// The nearest known name, or all of them.
pub fn hint(name: &str, known: &[&str]) -> String {
    let distance = |candidate: &&&str| strsim::damerau_levenshtein(name, candidate);
    let near =
        known.iter().min_by_key(distance).filter(|near| distance(near) <= (name.len() / 3).clamp(1, 3));
    match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// A dotted path; a key that TOML wants in quotes keeps them.
fn joined(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
