//! Case files: what is written by hand is kept, what is expected is compared or renewed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::language::words::{Result, number};

/// One scene: packets in order, through tables that begin empty.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    /// One sentence.
    pub rule: String,
    pub steps: Vec<Step>,
    /// Packets of one worker that can be on their way out at once.
    pub ring: usize,
    /// Buffers of one worker.
    pub buffers: usize,
}

/// What happens next in a case.
#[derive(Debug)]
pub enum Step {
    /// This configuration takes effect.
    Scenario(String),
    /// A packet comes in.
    Input(Input),
}

/// A packet that comes in.
#[derive(Debug)]
pub struct Input {
    /// Seconds since the start.
    pub at: u32,
    /// By this NIC.
    pub nic: u8,
    /// Of this worker's queue.
    pub worker: usize,
    /// In the packet language.
    pub frame: String,
    /// What is written to come of it.
    pub expected: Vec<String>,
    /// Number of the file's line behind the text, where what comes of it belongs.
    pub end: usize,
}

/// Before a line of what is expected.
const EXPECTED: &str = "< ";
const USUAL_RING: usize = 64;

/// A file of cases.
pub struct CaseFile {
    pub path: PathBuf,
    text: String,
    pub cases: Vec<Case>,
}

/// All case files of a directory, in the order of their names.
pub fn read_all(directory: &Path) -> Vec<CaseFile> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths.into_iter().map(CaseFile::read).collect()
}

impl CaseFile {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let cases = parse(&text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        Self { path, text, cases }
    }

    /// The text with other expectations: `actual` has the lines behind each input of each case, in order.
    pub fn blessed(&self, actual: &[Vec<String>]) -> String {
        let inputs = self.cases.iter().flat_map(|case| &case.steps).filter_map(|step| match step {
            Step::Input(input) => Some(input.end),
            Step::Scenario(_) => None,
        });
        let mut ends = inputs.zip(actual).peekable();
        let mut text = String::new();
        for (index, line) in self.text.lines().enumerate() {
            if !line.starts_with(EXPECTED.trim_end()) {
                text += line;
                text.push('\n');
            }
            if let Some((_, lines)) = ends.next_if(|(end, _)| *end == index + 1) {
                lines.iter().for_each(|line| text += &format!("{EXPECTED}{line}\n"));
            }
        }
        text
    }

    /// Writes the text if it differs.
    pub fn renew(&self, text: &str) {
        if text != self.text {
            // Other tests may be reading, so the file is never seen half written.
            let new = self.path.with_extension("new");
            let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.path));
            written.unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
            println!("renewed {}", self.path.display());
        }
    }
}

fn parse(text: &str) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let (mut end, mut entry) = (index + 1, line.to_owned());
        while let Some((_, more)) = lines.next_if(|(_, line)| line.starts_with("  ")) {
            entry = format!("{entry} {}", more.trim());
            end += 1;
        }
        let (keyword, value) = entry.split_once(' ').unwrap_or((&entry, ""));
        let place = |problem: String| format!("line {}: {problem}", index + 1);
        if keyword == "case" {
            cases.push(Case::named(value));
            continue;
        }
        let case = cases.last_mut().ok_or_else(|| place("this is before the first `case`".into()))?;
        case.take(keyword, value, end).map_err(place)?;
    }
    Ok(cases)
}

impl Case {
    fn named(name: &str) -> Self {
        let (ring, buffers) = (USUAL_RING, USUAL_RING);
        Self { name: name.to_owned(), rule: String::new(), steps: vec![], ring, buffers }
    }

    fn take(&mut self, keyword: &str, value: &str, end: usize) -> Result<()> {
        match keyword {
            "rule" => self.rule = value.to_owned(),
            "scenario" => self.steps.push(Step::Scenario(value.to_owned())),
            "ring" => self.ring = number(value)?,
            "buffers" => self.buffers = number(value)?,
            ">" => self.steps.push(Step::Input(input(value, end)?)),
            "<" => match self.steps.last_mut() {
                Some(Step::Input(input)) => input.expected.push(value.to_owned()),
                _ => return Err("this is expected of no input".into()),
            },
            other => return Err(format!("`{other}` begins no line of a case file")),
        }
        Ok(())
    }
}

/// `[at S] [nic N] [worker N] FRAME`
fn input(mut text: &str, end: usize) -> Result<Input> {
    let [mut at, mut nic, mut worker] = [1, 0, 0];
    loop {
        let mut words = text.splitn(3, ' ');
        let (word, value, rest) = (words.next(), words.next(), words.next());
        let field = match word {
            Some("at") => &mut at,
            Some("nic") => &mut nic,
            Some("worker") => &mut worker,
            _ => break,
        };
        *field = number(value.unwrap_or_default())?;
        text = rest.unwrap_or_default();
    }
    let nic = u8::try_from(nic).map_err(|_| "there are fewer NICs".to_owned())?;
    Ok(Input { at, nic, worker: worker as usize, frame: text.to_owned(), expected: vec![], end })
}
