//! Where the programs under test are.

use std::path::PathBuf;

use crate::error::{Result, While, ensure};

/// Names a directory that holds the programs, if they are not beside this one.
pub const DIRECTORY_VARIABLE: &str = "SHUNT_BIN_DIR";

/// Directory of the programs: `$SHUNT_BIN_DIR`, or where this program itself was built.
pub fn directory() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE) {
        return Ok(directory.into());
    }
    let own = std::env::current_exe().to(|| "find the path of this program".to_owned())?;
    // Test programs are one level deeper, in `deps`.
    let directory = own.ancestors().skip(1).find(|path| !path.ends_with("deps"));
    Ok(directory.unwrap_or(&own).to_owned())
}

/// Path of one program.
pub fn path(name: &str) -> Result<PathBuf> {
    let path = directory()?.join(name);
    ensure(path.is_file(), || {
        format!(
            "{} is missing; build it with `cargo build --release`, or set {DIRECTORY_VARIABLE}",
            path.display()
        )
    })?;
    Ok(path)
}
