//! YAML read into the same tree as TOML, so that whoever reads keys and values of the one reads those of the other.
//! Words without quotes mean what they mean to kubectl (`yes` is true, as in YAML 1.1); aliases, which no manifest
//! needs, are refused.

use std::borrow::Cow;

use granit_parser::{Event, Parser, ScalarStyle, Span};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::Source;
use crate::status::ConfigProblem;

/// Deeper than any manifest; each level is a call.
const DEPTH_MAX: usize = 32;

type Node<'t> = Spanned<DeValue<'t>>;

impl<'d> Source<'d> {
    /// Parses every document that is not empty.
    pub fn parse_yaml(&self) -> Result<Vec<Node<'d>>, ConfigProblem> {
        let mut reader = Reader { source: self, parser: Parser::new_from_str(self.text) };
        let mut documents = Vec::new();
        while let Some((event, span)) = reader.next()? {
            documents.extend(reader.node(event, span, 0)?);
        }
        Ok(documents)
    }
}

struct Reader<'r, 't, P: granit_parser::BorrowedInput<'t>> {
    source: &'r Source<'t>,
    parser: Parser<'t, P>,
}

impl<'t, P: granit_parser::BorrowedInput<'t>> Reader<'_, 't, P> {
    /// The next event that is part of a value; comments are none.
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, ConfigProblem> {
        while let Some(event) = self.parser.next_event() {
            let (event, span) = event.map_err(|error| {
                let offset = error.marker().byte_offset().unwrap_or(self.source.text.len());
                self.source.problem(offset, "", format!("this is not YAML: {}", error.info()))
            })?;
            match event {
                Event::Alias(_) => {
                    let start = span.start.byte_offset().unwrap_or_default();
                    let reason = "aliases are not read here; write the value itself";
                    return Err(self.source.problem(start, "", reason));
                }
                Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd => return Ok(Some((event, span))),
                _ => {}
            }
        }
        Ok(None)
    }

    /// What begins with an event; `None` for a value that is not there.
    fn node(
        &mut self,
        event: Event<'t>,
        span: Span,
        depth: usize,
    ) -> Result<Option<Node<'t>>, ConfigProblem> {
        let start = span.start.byte_offset().unwrap_or_default();
        let end = span.end.byte_offset().unwrap_or(start);
        let problem = |reason: &str| Err(self.source.problem(start, "", reason));
        if depth > DEPTH_MAX {
            return problem("this is nested too deeply");
        }
        let value = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => plain(text),
            Event::Scalar(text, ..) => Some(DeValue::String(text)),
            Event::SequenceStart(..) => Some(DeValue::Array(self.sequence(depth)?)),
            Event::MappingStart(..) => Some(DeValue::Table(self.mapping(depth)?)),
            _ => return problem("a value is missing here"),
        };
        Ok(value.map(|value| Spanned::new(start..end, value)))
    }

    fn sequence(&mut self, depth: usize) -> Result<DeArray<'t>, ConfigProblem> {
        let mut array = DeArray::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            // An element that is not there is empty text, which nothing takes.
            let start = span.start.byte_offset().unwrap_or_default();
            let element = self.node(event, span, depth + 1)?;
            array.push(element.unwrap_or_else(|| Spanned::new(start..start, DeValue::String("".into()))));
        }
        Ok(array)
    }

    fn mapping(&mut self, depth: usize) -> Result<DeTable<'t>, ConfigProblem> {
        let mut table = DeTable::new();
        while let Some((event, span)) = self.next()? {
            let start = span.start.byte_offset().unwrap_or_default();
            let Event::Scalar(key, ..) = event else {
                if event == Event::MappingEnd {
                    break;
                }
                return Err(self.source.problem(start, "", "this is no key; write a word before the `:`"));
            };
            let end = span.end.byte_offset().unwrap_or(start);
            let Some((event, span)) = self.next()? else { break };
            let Some(value) = self.node(event, span, depth + 1)? else { continue };
            let name = Spanned::new(start..end, key.clone());
            if table.insert(name, value).is_some() {
                let reason = format!("`{key}` is given twice; keep one of the two");
                return Err(self.source.problem(start, &key, reason));
            }
        }
        Ok(table)
    }
}

/// A scalar without quotes.
fn plain(text: Cow<'_, str>) -> Option<DeValue<'_>> {
    match text.to_ascii_lowercase().as_str() {
        "" | "~" | "null" => return None,
        "true" | "yes" | "on" => return Some(DeValue::Boolean(true)),
        "false" | "no" | "off" => return Some(DeValue::Boolean(false)),
        _ => {}
    }
    // What is not as it stands in the text spans lines, and is no number.
    let number = if let Cow::Borrowed(text) = text { number(text) } else { None };
    Some(number.unwrap_or(DeValue::String(text)))
}

/// TOML's numbers are written as YAML's, but for some that no manifest needs.
fn number(text: &str) -> Option<DeValue<'_>> {
    let first = text.strip_prefix(['-', '+']).unwrap_or(text).bytes().next()?;
    if !first.is_ascii_digit() || text.contains('_') {
        return None;
    }
    let value = DeValue::parse(text).ok()?.into_inner();
    (value.is_integer() || value.is_float()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Source::yaml(text, "f").parse_yaml().map(|found| format!("{found:?}")).unwrap_err().to_string()
    }

    #[test]
    fn documents_become_trees_with_places() {
        let text =
            "# a\n---\na: [1, 'x', true, 198.51.100.7, 0x10]\nb:\n  c: ~\n  d: 2026-01-01\n---\n---\nü: 1\n";
        let source = Source::yaml(text, "f");
        let documents = source.parse_yaml().unwrap();
        assert_eq!(documents.len(), 2);
        let DeValue::Table(first) = documents[0].get_ref() else { panic!("a mapping") };
        let a = first["a"].get_ref().as_array().unwrap();
        assert!(a[0].get_ref().is_integer() && a[1].get_ref().is_str() && a[2].get_ref().is_bool());
        assert_eq!(a[3].get_ref().as_str(), Some("198.51.100.7"));
        assert_eq!(&text[a[3].span()], "198.51.100.7");
        let b = first["b"].get_ref().as_table().unwrap();
        assert!(b.get("c").is_none(), "null is not there");
        assert_eq!(b["d"].get_ref().as_str(), Some("2026-01-01"), "a date is text");
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_place() {
        assert_eq!(problem("a: 1\na: 2\n"), "f:2:1: a: `a` is given twice; keep one of the two");
        assert_eq!(problem("a: &x 1\nb: *x\n"), "f:2:4: aliases are not read here; write the value itself");
        assert_eq!(problem("? [a]\n: 1\n"), "f:1:3: this is no key; write a word before the `:`");
        let syntax = problem("a: [1\n");
        assert!(syntax.starts_with("f:") && syntax.contains("this is not YAML: "), "{syntax}");
        let deep = problem(&format!("{}{}", "[".repeat(100), "]".repeat(100)));
        assert!(deep.contains("this is nested too deeply"), "{deep}");
    }
}
