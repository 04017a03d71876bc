//! Compiles the backends' decapsulating XDP program; the object is embedded by `src/decap.rs`.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "bpf/decap.bpf.c";

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    // Debian keeps <asm/types.h>, which the kernel's headers include, under the multiarch triple.
    let include = format!("-I/usr/include/{arch}-linux-gnu");
    if let Err(error) = SkeletonBuilder::new()
        .source(SOURCE)
        .obj(out.join("decap.bpf.o"))
        .clang_args([include.as_str(), "-Wall", "-Werror"])
        .build()
    {
        panic!("cannot compile {SOURCE}: {error:#}; install clang and linux-libc-dev");
    }
    println!("cargo::rerun-if-changed={SOURCE}");
}
