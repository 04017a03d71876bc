//! Compiles the steering program (`bpf/steer.bpf.c`) to `$OUT_DIR/steer.bpf.o`, which `src/program.rs` embeds.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "bpf/steer.bpf.c";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed={SOURCE}");
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            problem.lines().for_each(|line| println!("cargo::error={line}"));
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    Command::new("clang").arg("--version").output().map_err(|error| {
        format!("clang, which compiles {SOURCE}, does not start ({error}): run deploy/bootstrap.sh as root")
    })?;
    let object = PathBuf::from(environment("OUT_DIR")?).join("steer.bpf.o");
    let mut arguments: Vec<String> = ["-Wall", "-Wextra", "-Werror", "-mcpu=v3"].map(String::from).into();
    arguments.extend(kernel_headers(&environment("CARGO_CFG_TARGET_ARCH")?));
    SkeletonBuilder::new()
        .source(SOURCE)
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
