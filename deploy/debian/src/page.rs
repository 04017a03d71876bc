//! The manual page of a command. Pure.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// Where the pages of programs for administrators stand.
pub const SECTION: &str = "8";

/// A page (name, text) for a program and each command of it that is not hidden.
pub fn pages(program: &Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut program = program.clone().disable_help_subcommand(true);
    program.build();
    let mut pages = Vec::new();
    add(&program, None, &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, above: Option<&str>, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let text = page(command, above)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        add(below, Some(&name), pages)?;
    }
    pages.push((name, text));
    Ok(())
}

/// `above` is the page of the command that this one belongs to.
fn page(command: &Command, above: Option<&str>) -> io::Result<Vec<u8>> {
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command.clone()).section(SECTION).manual("Shunt").source(format!("Shunt {version}"));
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.get_subcommands().any(|below| !below.is_hide_set()) {
        man.render_subcommands_section(&mut text)?;
    }
    notes(command, &mut text)?;
    see_also(above, &mut text)?;
    Ok(text)
}

/// What `--help` says at its end. Indented lines, which are examples and tables, stay as they are.
fn notes(command: &Command, text: &mut dyn Write) -> io::Result<()> {
    let Some(notes) = command.get_after_long_help().or_else(|| command.get_after_help()) else {
        return Ok(());
    };
    let mut roff = Roff::new();
    roff.control("SH", ["NOTES"]);
    let mut as_is = false;
    for line in notes.to_string().lines() {
        let indented = line.starts_with(' ');
        if indented != as_is {
            roff.control(if indented { "nf" } else { "fi" }, []);
            as_is = indented;
        }
        if line.is_empty() {
            roff.control("PP", []);
        } else {
            roff.text([roman(line)]);
        }
    }
    if as_is {
        roff.control("fi", []);
    }
    roff.to_writer(text)
}

fn see_also(above: Option<&str>, text: &mut dyn Write) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    let above = above.map(|above| format!("{above}({SECTION}), ")).unwrap_or_default();
    roff.text([roman(format!("{above}/etc/shunt/shunt.toml, /usr/share/doc/shunt"))]);
    roff.to_writer(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Command {
        let hidden = Command::new("secret").hide(true);
        let deep = Command::new("deep").about("Goes deep");
        let shown = Command::new("shown")
            .about("Shows")
            .subcommand(deep)
            .after_help("Examples:\n  tool shown\n  tool");
        Command::new("tool").about("Is a tool").subcommands([shown, hidden])
    }

    #[test]
    fn every_command_that_is_shown_has_a_page() {
        let pages = pages(&program()).unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["tool-shown-deep", "tool-shown", "tool"]);
    }

    #[test]
    fn a_page_names_itself_and_the_one_above_and_keeps_the_lines_of_examples() {
        let pages = pages(&program()).unwrap();
        let text = |name: &str| {
            let (_, text) = pages.iter().find(|(is, _)| is == name).unwrap();
            String::from_utf8(text.clone()).unwrap()
        };
        let shown = text("tool-shown");
        assert!(shown.contains("\n.SH NAME\ntool\\-shown \\- Shows\n"), "{shown}");
        assert!(shown.contains("\nExamples:\n.nf\n  tool shown\n  tool\n.fi\n"), "{shown}");
        assert!(shown.contains("tool\\-shown\\-deep(8)"), "{shown}");
        assert!(text("tool-shown-deep").contains("tool\\-shown(8)"), "{}", text("tool-shown-deep"));
    }

    #[test]
    fn all_programs_have_pages() {
        for program in crate::programs() {
            let pages = pages(&program).unwrap();
            let own = pages.last().expect("a program has a page at least");
            assert_eq!(own.0, program.get_name());
        }
    }
}
