//! Compiles the load generator and the sink; the objects are embedded by `src/end_to_end/{generator,sink}.rs`.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

const PROGRAMS: [&str; 2] = ["generate", "sink"];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    // Debian keeps <asm/types.h>, which the kernel's headers include, under the multiarch triple.
    let include = format!("-I/usr/include/{arch}-linux-gnu");
    println!("cargo::rerun-if-changed=bpf/traffic.h");
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
