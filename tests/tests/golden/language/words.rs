//! The words of one layer, taken one by one; whatever is left over in the end is a mistake.

/// One layer's words behind its name.
pub struct Words<'a> {
    layer: &'a str,
    left: Vec<&'a str>,
}

/// What is wrong with a text.
pub type Result<T> = std::result::Result<T, String>;

impl<'a> Words<'a> {
    /// Splits a layer's text; the first word is its name.
    pub fn new(layer: &'a str) -> Self {
        Self { layer, left: layer.split_whitespace().skip(1).collect() }
    }

    /// Takes the first word.
    pub fn next(&mut self) -> Result<&'a str> {
        if self.left.is_empty() {
            return Err(format!("`{}` is too short", self.layer));
        }
        Ok(self.left.remove(0))
    }

    /// Takes `A > B` from the front, if it is there.
    pub fn pair(&mut self) -> Option<(&'a str, &'a str)> {
        let pair = match *self.left {
            [one, ">", other, ..] => (one, other),
            _ => return None,
        };
        self.left.drain(..3);
        Some(pair)
    }

    /// Takes a word that stands alone.
    pub fn flag(&mut self, name: &str) -> bool {
        let at = self.left.iter().position(|word| *word == name);
        at.map(|at| self.left.remove(at)).is_some()
    }

    /// Takes the word behind a name.
    pub fn text(&mut self, name: &str) -> Result<Option<&'a str>> {
        let Some(at) = self.left.iter().position(|word| *word == name) else { return Ok(None) };
        if at + 1 == self.left.len() {
            return Err(format!("nothing follows `{name}` in `{}`", self.layer));
        }
        self.left.remove(at);
        Ok(Some(self.left.remove(at)))
    }

    /// Takes the number behind a name.
    pub fn number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<Option<T>> {
        self.text(name)?.map(number).transpose()
    }

    /// Takes the number behind a name, or the usual one.
    pub fn number_or<T: TryFrom<u64>>(&mut self, name: &str, usual: T) -> Result<T> {
        Ok(self.number(name)?.unwrap_or(usual))
    }

    /// Takes the hexadecimal bytes behind a name; none without it.
    pub fn bytes(&mut self, name: &str) -> Result<Vec<u8>> {
        self.text(name)?.map_or(Ok(Vec::new()), bytes)
    }

    /// Takes the first word that is one of these names and the word behind it.
    pub fn first_of(&mut self, names: &[&str]) -> Result<Option<(&'a str, &'a str)>> {
        let Some(name) = self.left.iter().copied().find(|word| names.contains(word)) else { return Ok(None) };
        Ok(self.text(name)?.map(|value| (name, value)))
    }

    /// Takes all words that are left.
    pub fn rest(&mut self) -> Vec<&'a str> {
        std::mem::take(&mut self.left)
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<()> {
        if self.left.is_empty() {
            return Ok(());
        }
        Err(format!("`{}` is not understood in `{}`", self.left.join(" "), self.layer))
    }
}

/// A decimal number, or a hexadecimal one behind `0x`.
pub fn number<T: TryFrom<u64>>(text: &str) -> Result<T> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let number = parsed.ok().and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| format!("`{text}` is not a number that fits here"))
}

/// Hexadecimal digits, two for a byte.
pub fn bytes(text: &str) -> Result<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
    let bytes: Option<Vec<u8>> =
        pairs.map(|pair| u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2)).collect();
    bytes.ok_or_else(|| format!("`{text}` is not made of pairs of hexadecimal digits"))
}

/// Anything with a text form.
pub fn parsed<T: std::str::FromStr>(text: &str, what: &str) -> Result<T> {
    text.parse().map_err(|_| format!("`{text}` is not {what}"))
}
