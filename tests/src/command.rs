//! Short commands that have to succeed.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result, While};

/// Runs a program to its end and returns what it printed; anything but exit code 0 is an error.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    succeeded(command, &output)
}

/// Runs a program to its end, whatever its exit code.
pub fn output(command: &mut Command) -> Result<Output> {
    // In its own group the terminal's Ctrl-C does not reach it: ending things in order is ours.
    command.process_group(0).stdin(Stdio::null()).output().to(|| format!("run {}", line(command)))
}

/// Runs a program that reads its instructions from stdin.
pub fn feed(command: &mut Command, input: &str) -> Result<String> {
    let piped = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().to(|| format!("run {}", line(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that gave up reading says why on stderr.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().to(|| format!("wait for {}", line(command)))?;
    succeeded(command, &output)
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn succeeded(command: &Command, output: &Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = if stderr.trim().is_empty() { stdout.trim() } else { stderr.trim() };
    Err(Error::Command { command: line(command), status: output.status.to_string(), output: said.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_carries_command_status_and_message() {
        assert_eq!(run(Command::new("echo").arg("hello")).unwrap(), "hello\n");
        assert_eq!(feed(&mut Command::new("cat"), "fed").unwrap(), "fed");
        let error = run(Command::new("sh").args(["-c", "echo sorry >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c") && text.contains('3') && text.contains("sorry"), "{text}");
    }
}
