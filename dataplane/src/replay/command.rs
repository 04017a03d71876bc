//! `shunt-dataplane replay`: files in, files out.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use shunt_api::CONFIG_FILE;
use shunt_api::compile::compile;
use shunt_api::config::{Config, read_fleet_key};
use shunt_api::snapshot::FleetKey;
use shunt_api::status::ConfigProblem;

use super::capture::{Capture, CaptureError, Precision, Writer};
use super::report::{self, Report, Summary};
use super::ways::Neighbor;
use super::{Replay, ReplayError, Settings};

/// Stands for standard input or output.
const STANDARD: &str = "-";

/// Where a box keeps a fleet key of its own.
const OWN_KEY_FILE: &str = "/var/lib/shunt/fleet.key";

/// The help's last words.
pub const EXAMPLES: &str = "\
Example, where the clients' packets pass:
  tcpdump -i eth1 -s 0 -w in.pcap
  shunt-dataplane replay --config shunt.toml --in in.pcap --out out.pcap --report report.json
  tcpdump -enr out.pcap
  jq -c '.packets[] | select(.verdict == \"drop\")' report.json";

/// Command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    pub config: PathBuf,
    /// Capture to replay, pcap or pcapng, of Ethernet frames; `-` is standard input
    #[arg(long = "in", value_name = "FILE")]
    pub input: PathBuf,
    /// Where to write the packets that leave, as pcap; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Where to write what became of each packet, as JSON; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// MAC address, and VLAN, to send to for a backend; repeat for each [without: 02:00:00:00:00:01]
    #[arg(long = "neighbor", value_name = "ADDRESS=MAC[@VLAN]")]
    pub neighbors: Vec<Neighbor>,
    /// Bytes of IP packet that fit every way
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(68..=65535))]
    pub mtu: u32,
    /// Fleet key of the box, by which backends are chosen [without: the one that the configuration names]
    #[arg(long, value_name = "FILE")]
    pub fleet_key: Option<PathBuf>,
}

/// Why nothing, or not all, was replayed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigProblem),
    /// The fleet key named on the command line.
    #[error("--fleet-key: {0}")]
    FleetKey(String),
    /// The configuration and the neighbours.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The capture cannot be opened.
    #[error("--in {path}: {source}; name a capture that this user may read")]
    Open {
        /// As given.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The capture is not one that can be replayed.
    #[error("--in {path}: {source}")]
    Capture {
        /// As given.
        path: String,
        /// What is wrong.
        source: CaptureError,
    },
    /// A file cannot be written.
    #[error("{path}: {source}; name a file that can be written, on a disk with room")]
    Write {
        /// As given.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// Two files are one.
    #[error("{0} is named twice; --in, --out and --report are different files")]
    Twice(String),
}

/// Replays, and says on standard output (or standard error, if that is in use) what became of the packets.
pub fn run(options: &Options) -> Result<(), CommandError> {
    let said = match replay(options) {
        // Whoever reads us, such as `head`, has seen enough.
        Err(CommandError::Write { source, .. }) if source.kind() == ErrorKind::BrokenPipe => return Ok(()),
        other => other?,
    };
    // All is written; whoever does not want the summary does not get it.
    let _ = if options.outputs().any(|path| path == Path::new(STANDARD)) {
        io::stderr().write_all(said.as_bytes())
    } else {
        io::stdout().write_all(said.as_bytes())
    };
    Ok(())
}

fn replay(options: &Options) -> Result<String, CommandError> {
    options.check_files()?;
    let config = Config::load(&options.config)?;
    let capture = options.open_capture()?;
    let snapshot = compile(&config, fleet_key(options, &config)?);
    let settings = Settings { neighbors: &options.neighbors, mtu: options.mtu };
    let mut replay = Replay::new(&snapshot, &settings)?;
    let summary = play(&mut replay, capture, options)?;
    Ok(format!("{summary}{}", report::rate(&replay.counters(), replay.in_worker())))
}

/// Plays all packets of the capture.
fn play(replay: &mut Replay, mut capture: Capture, options: &Options) -> Result<Summary, CommandError> {
    let (mut summary, mut cut) = (Summary::default(), 0);
    let mut out = create_capture(&options.out, capture.precision()).map_err(writing(&options.out))?;
    let mut report = options.report.as_deref().map(create_report).transpose()?;
    while let Some(record) = capture.next_record().map_err(|source| options.capture_error(source))? {
        cut += u64::from(record.is_cut());
        let mut written = Ok(());
        let account = replay.play(record.time, record.bytes, |bytes| {
            if written.is_ok() {
                written = out.record(record.time, bytes);
            }
        });
        written.map_err(writing(&options.out))?;
        let sent = summary.add(&account);
        if let Some((path, report)) = &mut report {
            report.packet(summary.packets, record.time, &account, sent).map_err(writing(path))?;
        }
    }
    out.finish().map_err(writing(&options.out))?;
    if let Some((path, report)) = report {
        report.finish(&summary, &replay.counters()).map_err(writing(path))?;
    }
    warn(options, &summary, cut, capture.is_cut_short());
    Ok(summary)
}

/// The key of the box, if it can be had.
fn fleet_key(options: &Options, config: &Config) -> Result<FleetKey, CommandError> {
    if let Some(path) = &options.fleet_key {
        return read_fleet_key(path).map_err(CommandError::FleetKey);
    }
    let why = match config.fleet_key_file.as_ref().map(|file| file.read()) {
        Some(Ok(key)) => return Ok(key),
        Some(Err(problem)) => problem.to_string(),
        None => "the configuration names no fleet key".to_owned(),
    };
    note(&format!(
        "{why}; a key of zeros serves instead, and another backend may be chosen for a flow than on the box, whose \
         key --fleet-key names, such as {OWN_KEY_FILE}"
    ));
    Ok(FleetKey([0; 16]))
}

fn warn(options: &Options, summary: &Summary, cut: u64, is_cut_short: bool) {
    let (path, packets) = (options.input.display(), summary.packets);
    if cut > 0 {
        note(&format!(
            "{cut} of {packets} packets in {path} were cut when they were captured, and most of those count as \
             `truncated`; capture with `tcpdump -s 0`"
        ));
    }
    if is_cut_short {
        note(&format!("{path} ends in the middle of a packet; those before it were replayed"));
    }
}

fn note(what: &str) {
    eprintln!("note: {what}");
}

impl Options {
    fn outputs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.out.as_path()).chain(self.report.as_deref())
    }

    /// No file may be written that is read, or written twice. Devices may.
    fn check_files(&self) -> Result<(), CommandError> {
        let twice = |path: &Path| Err(CommandError::Twice(path.display().to_string()));
        let input = identity(&self.input);
        if let Some(path) = self.outputs().find(|path| input.is_some() && identity(path) == input) {
            return twice(path);
        }
        match &self.report {
            Some(report) if *report == self.out && !report.exists() => twice(report),
            Some(report) if identity(report).is_some_and(|id| identity(&self.out) == Some(id)) => {
                twice(report)
            }
            _ => Ok(()),
        }
    }

    fn open_capture(&self) -> Result<Capture, CommandError> {
        let open = |source| CommandError::Open { path: self.input.display().to_string(), source };
        let source: Box<dyn Read + Send> = if self.input == Path::new(STANDARD) {
            Box::new(io::stdin())
        } else {
            let file = File::open(&self.input).map_err(open)?;
            if file.metadata().map_err(open)?.is_dir() {
                return Err(open(ErrorKind::IsADirectory.into()));
            }
            Box::new(file)
        };
        Capture::open(source).map_err(|source| self.capture_error(source))
    }

    fn capture_error(&self, source: CaptureError) -> CommandError {
        CommandError::Capture { path: self.input.display().to_string(), source }
    }
}

/// What two names of one regular file have in common.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((metadata.dev(), metadata.ino()))
}

/// A file, or standard output.
type Sink = BufWriter<Box<dyn Write>>;

fn create(path: &Path) -> io::Result<Sink> {
    let file: Box<dyn Write> =
        if path == Path::new(STANDARD) { Box::new(io::stdout()) } else { Box::new(File::create(path)?) };
    Ok(BufWriter::new(file))
}

fn create_capture(path: &Path, precision: Precision) -> io::Result<Writer<Sink>> {
    Writer::new(create(path)?, precision)
}

fn create_report(path: &Path) -> Result<(&Path, Report<Sink>), CommandError> {
    let report = create(path).and_then(Report::new).map_err(writing(path))?;
    Ok((path, report))
}

fn writing(path: &Path) -> impl FnOnce(io::Error) -> CommandError {
    move |source| CommandError::Write { path: path.display().to_string(), source }
}
