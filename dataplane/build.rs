//! Compiles the BPF programs (`bpf/NAME.bpf.c`) to `$OUT_DIR/NAME.bpf.o`, which `src/program.rs` and
//! `src/program/probe.rs` embed.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libbpf_cargo::SkeletonBuilder;

const PROGRAMS: [&str; 2] = ["steer", "probe"];

fn main() -> ExitCode {
    match PROGRAMS.iter().try_for_each(|name| compile(name)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            problem.lines().for_each(|line| println!("cargo::error={line}"));
            ExitCode::FAILURE
        }
    }
}

fn compile(name: &str) -> Result<(), String> {
    let source = format!("bpf/{name}.bpf.c");
    println!("cargo::rerun-if-changed={source}");
    Command::new("clang").arg("--version").output().map_err(|error| {
        format!("clang, which compiles {source}, does not start ({error}): run deploy/bootstrap.sh as root")
    })?;
    let object = PathBuf::from(environment("OUT_DIR")?).join(format!("{name}.bpf.o"));
    let mut arguments: Vec<String> = ["-Wall", "-Wextra", "-Werror", "-mcpu=v3"].map(String::from).into();
    arguments.extend(kernel_headers(&environment("CARGO_CFG_TARGET_ARCH")?));
    SkeletonBuilder::new()
        .source(&source)
        .obj(object)
        .clang_args(arguments)
        .build()
        .map_err(|error| format!("{error:#}"))
}

/// Debian keeps `asm/*.h` in a directory per architecture, where `-target bpf` does not look.
fn kernel_headers(architecture: &str) -> Option<String> {
    let directory = format!("/usr/include/{architecture}-linux-gnu");
    Path::new(&directory).is_dir().then(|| format!("-I{directory}"))
}

fn environment(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}; build with cargo"))
}
