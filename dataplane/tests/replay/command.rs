//! The program: files, standard input and output, notes, and what it refuses.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use shunt_dataplane::replay::capture::Precision;

use super::files::{Order, directory, packets, pcap, raw_pcap, read};
use super::frames::*;

/// One run of the program in a directory of its own, with `shunt.toml` and `in.pcap` there.
pub struct Run {
    directory: PathBuf,
}

/// What a run left.
pub struct Left {
    pub out: Vec<u8>,
    pub report: Vec<u8>,
    pub said: String,
    pub noted: String,
}

impl Run {
    pub fn new(test: &str, capture: &[u8]) -> Self {
        let directory = directory(test);
        std::fs::write(directory.join("shunt.toml"), CONFIG).unwrap();
        std::fs::write(directory.join("in.pcap"), capture).unwrap();
        Self { directory }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shunt-dataplane"));
        command.current_dir(&self.directory).arg("replay").args(arguments);
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// With a report.
    pub fn succeed(&self) -> Left {
        self.succeed_with(&[])
    }

    pub fn succeed_with(&self, more: &[&str]) -> Left {
        let usual = "--config shunt.toml --in in.pcap --out out.pcap --report report.json";
        let output = self.output(&usual.split(' ').chain(more.iter().copied()).collect::<Vec<_>>());
        let [said, noted] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(output.status.success(), "{noted}");
        let left = |name: &str| std::fs::read(self.directory.join(name)).unwrap();
        Left { out: left("out.pcap"), report: left("report.json"), said, noted }
    }

    /// Exit code and message.
    fn fail(&self, arguments: &str) -> (i32, String) {
        let output = self.output(&arguments.split(' ').collect::<Vec<_>>());
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

fn web() -> Vec<u8> {
    pcap(&packets(&[tcp(40_000, VIP, 80, SYN), arp()]), Precision::Nano)
}

#[test]
fn the_summary_is_for_people_and_neighbours_are_used() {
    let run = Run::new("neighbours", &web());
    let left = run.succeed_with(&["--neighbor", "10.0.0.1=02:00:00:00:00:0a@20"]);
    assert!(left.said.starts_with("2 packets came, 1 left\nforward"), "{}", left.said);
    assert!(
        left.said.contains("  not_ip                             1  The frame carries neither"),
        "{}",
        left.said
    );
    assert!(left.noted.contains("names no fleet key"), "{}", left.noted);
    let (sent, capture) = read(&left.out).unwrap();
    assert_eq!(capture.precision(), Precision::Nano);
    assert_eq!(sent[0].1[..6], [2, 0, 0, 0, 0, 10]);
    assert_eq!(sent[0].1[12..16], [0x81, 0, 0, 20]);
}

#[test]
fn standard_input_and_output_do_instead_of_files() {
    let run = Run::new("pipes", b"");
    let mut child = run
        .command(&["--config", "shunt.toml", "--in", "-", "--out", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&web()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(read(&output.stdout).unwrap().0.len(), 1);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("2 packets came, 1 left"), "{said}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let run = Run::new("gone", &web());
    for out in ["-", "out.pcap"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = run.command(&["--config", "shunt.toml", "--in", "in.pcap", "--out", out]);
        let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{out}: {output:?}");
    }
}

#[test]
fn the_fleet_key_chooses_and_a_missing_one_is_noted() {
    let run = Run::new("key", &web());
    let write = |name: &str, text: &str| std::fs::write(run.directory.join(name), text).unwrap();
    write("fleet.key", "000102030405060708090a0b0c0d0e0f\n");
    assert_eq!(run.succeed_with(&["--fleet-key", "fleet.key"]).noted, "");
    write("shunt.toml", &format!("fleet_key_file = \"fleet.key\"\n{CONFIG}"));
    assert_eq!(run.succeed().noted, "");
    std::fs::remove_file(run.directory.join("fleet.key")).unwrap();
    let noted = run.succeed().noted;
    assert!(noted.contains("shunt.toml:1:") && noted.contains("a key of zeros serves instead"), "{noted}");
}

#[test]
fn cut_packets_and_cut_files_are_noted() {
    let mut short = packets(&[tcp(40_000, VIP, 80, SYN), tcp(40_001, VIP, 80, SYN)]);
    short[0].1.truncate(50);
    let file = raw_pcap(Order::Little, 0xa1b2_c3d4, 1, &short);
    let left = Run::new("cut", &file[..file.len() - 1]).succeed();
    assert!(left.noted.contains("1 of 1 packets in in.pcap were cut"), "{}", left.noted);
    assert!(
        left.noted.contains("tcpdump -s 0") && left.noted.contains("ends in the middle"),
        "{}",
        left.noted
    );
    assert!(left.said.contains("truncated"), "{}", left.said);
}

#[test]
fn what_cannot_be_done_is_refused_with_the_remedy() {
    let run = Run::new("refused", &web());
    let write = |name: &str, bytes: &[u8]| std::fs::write(run.directory.join(name), bytes).unwrap();
    write("any.pcap", &raw_pcap(Order::Little, 0xa1b2_c3d4, 276, &packets(&[arp()])));
    write("wrong.toml", b"nic = 1");
    let good = "--config shunt.toml --in in.pcap --out out.pcap";
    for (arguments, code, message) in [
        ("--config none.toml --in in.pcap --out out.pcap", 1, "none.toml: the file does not exist"),
        ("--config wrong.toml --in in.pcap --out out.pcap", 1, "wrong.toml:1:7: nic: "),
        ("--config shunt.toml --in none.pcap --out out.pcap", 1, "none.pcap: No such file"),
        ("--config shunt.toml --in . --out out.pcap", 1, "is a directory; name a capture"),
        ("--config shunt.toml --in shunt.toml --out out.pcap", 1, "this is no capture"),
        ("--config shunt.toml --in any.pcap --out out.pcap", 1, "link type 276"),
        ("--config shunt.toml --in in.pcap --out in.pcap", 1, "in.pcap is named twice"),
        ("--config shunt.toml --in in.pcap --out ./in.pcap", 1, "in.pcap is named twice"),
        ("--config shunt.toml --in in.pcap --out x --report x", 1, "x is named twice"),
        ("--config shunt.toml --in in.pcap --out - --report -", 1, "- is named twice"),
        ("--config shunt.toml --in in.pcap --out none/out.pcap", 1, "none/out.pcap: No such file"),
        ("--config shunt.toml --in in.pcap --out /dev/full", 1, "/dev/full: No space left"),
        (&format!("{good} --fleet-key none.key"), 1, "--fleet-key: none.key does not exist"),
        (&format!("{good} --neighbor 10.0.0.9=02:00:00:00:00:0a"), 1, "no backend has this address"),
        (&format!("{good} --neighbor 10.0.0.1"), 2, "write a backend's address and its MAC address"),
        (&format!("{good} --mtu 20"), 2, "--mtu"),
        ("--in in.pcap", 2, "--out"),
    ] {
        let (found, said) = run.fail(arguments);
        assert_eq!(found, code, "{arguments}: {said}");
        assert!(said.contains(message), "{arguments}: {said}");
    }
    assert_eq!(std::fs::read(run.directory.join("in.pcap")).unwrap(), web(), "the input is whole");
}
