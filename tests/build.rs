//! Compiles the BPF programs of the networks; the objects are embedded by `src/decapsulator.rs` and `src/vlan.rs`.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

const PROGRAMS: [&str; 2] = ["decap", "vlan"];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    // Debian keeps <asm/types.h>, which the kernel's headers include, under the multiarch triple.
    let include = format!("-I/usr/include/{arch}-linux-gnu");
    for program in PROGRAMS {
        let source = format!("bpf/{program}.bpf.c");
        if let Err(error) = SkeletonBuilder::new()
            .source(&source)
            .obj(out.join(format!("{program}.bpf.o")))
            .clang_args([include.as_str(), "-Wall", "-Werror"])
            .build()
        {
            panic!("cannot compile {source}: {error:#}; install clang and linux-libc-dev");
        }
        println!("cargo::rerun-if-changed={source}");
    }
}
