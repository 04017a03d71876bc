//! Who may import whom, and what the packet path never does: read from the manifests and the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Crates of ours that each crate may depend on; tests, benches, fuzz and deploy/debian may use all.
const MAY_DEPEND_ON: [(&str, &[&str]); 5] = [
    ("api", &[]),
    ("dataplane", &["shunt-api"]),
    ("controlplane", &["shunt-api"]),
    ("lbctl", &["shunt-api"]),
    ("nic-config", &["shunt-api"]),
];

/// Modules of the packet path that are pure: bytes and tables in, decisions and bytes out.
const PURE: [&str; 12] = [
    "packet",
    "flow",
    "maglev",
    "conntrack",
    "memo",
    "index",
    "fragments",
    "nat",
    "table",
    "forward",
    "rewrite",
    "reply",
];

/// What a pure module never names: I/O, clocks, logs, and the modules that do such things.
const FORBIDDEN: [&str; 18] = [
    "std::fs",
    "std::io",
    "std::process",
    "std::thread",
    "std::time",
    "std::sync::Mutex",
    "tokio::",
    "tracing::",
    "libc::",
    "rustix::",
    "println!",
    "crate::worker",
    "crate::control",
    "crate::engine",
    "crate::http",
    "crate::program",
    "crate::neighbor",
    "port::xsk",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn crates_depend_on_nothing_of_ours_but_what_they_may() {
    for (name, allowed) in MAY_DEPEND_ON {
        let manifest: toml::Table = read(&root().join(name).join("Cargo.toml")).parse().unwrap();
        let sections = ["dependencies", "build-dependencies", "dev-dependencies"];
        let all = sections
            .iter()
            .filter_map(|section| manifest.get(*section)?.as_table())
            .flat_map(toml::Table::keys);
        let ours: Vec<&String> = all.filter(|key| is_ours(key)).collect();
        assert!(ours.iter().all(|key| allowed.contains(&key.as_str())), "{name} depends on {ours:?}");
    }
}

fn is_ours(package: &str) -> bool {
    package.starts_with("shunt-") || ["lbctl", "nic-config"].contains(&package)
}

#[test]
fn the_packet_path_does_no_io_and_reads_no_clock() {
    let source = root().join("dataplane/src");
    let mut looked_at = 0;
    for module in PURE {
        for file in files_of(&source, module) {
            let text = read(&file);
            let code = text.split("#[cfg(test)]").next().expect("split yields at least one part");
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let found = FORBIDDEN.iter().find(|forbidden| line.contains(**forbidden));
                assert!(found.is_none(), "{}: {line}", file.display());
            }
            looked_at += 1;
        }
    }
    assert!(looked_at >= 32, "{looked_at} files: the modules have moved");
}

/// `module.rs` and what stands in `module/`, tests left out.
fn files_of(source: &Path, module: &str) -> Vec<PathBuf> {
    let (mut files, directory) = (vec![source.join(format!("{module}.rs"))], source.join(module));
    if directory.is_dir() {
        files.extend(rust_files(&directory));
    }
    let is_test = |part: std::path::Component| part.as_os_str().to_string_lossy().contains("tests");
    files.retain(|file| !file.strip_prefix(source).unwrap().components().any(is_test));
    files
}

#[test]
fn unsafe_code_stands_in_the_named_edges_only() {
    let edges = [
        "dataplane/src/memory.rs",
        "dataplane/src/port/xsk/libxdp.rs",
        "dataplane/src/port/xsk/own/memory.rs",
        "dataplane/src/port/xsk/syscall.rs",
        "dataplane/src/program/link.rs",
        "nic-config/src/ethtool.rs",
    ];
    for name in ["api", "dataplane", "controlplane", "lbctl", "nic-config", "benches", "tests", "fuzz"] {
        for file in rust_files(&root().join(name)) {
            let relative = file.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            let allows = read(&file).lines().any(|line| line.starts_with("#![allow(unsafe_code)]"));
            assert!(!allows || edges.contains(&relative.as_str()), "{relative} allows unsafe code");
        }
    }
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("target"));
    let (directories, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    let mut found: Vec<_> =
        files.into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs")).collect();
    directories.iter().for_each(|directory| found.extend(rust_files(directory)));
    found
}
