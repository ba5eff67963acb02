//! What people keep beside the program: completions for their shells, and pages of the manual.

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use std::io::Write;
use std::path::Path;

/// The name under which the program is called.
const NAME: &str = "nublar";

/// Writes a shell's completions.
pub(crate) fn completions(mut command: Command, shell: Shell, out: &mut dyn Write) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, NAME, &mut text);
    Ok(out.write_all(&text)?)
}

/// Writes a page for each command into a folder, which is made if it is not there. Returns how many.
pub(crate) fn pages(command: Command, dir: &Path) -> Result<usize> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut written = 0;
    page(&command, dir, &mut written)?;
    Ok(written)
}

fn page(command: &Command, dir: &Path, written: &mut usize) -> Result<()> {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name());
    let path = dir.join(format!("{name}.1"));
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    *written += 1;
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        page(below, dir, written)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Arguments;
    use clap::CommandFactory;

    /// The words of every command, `artifacts add` for example.
    fn commands(of: &Command, before: &str, found: &mut Vec<String>) {
        for below in of.get_subcommands() {
            let words = format!("{before}{}", below.get_name());
            commands(below, &format!("{words} "), found);
            found.push(words);
        }
    }

    #[test]
    fn every_command_has_a_page_that_says_what_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("man");
        let written = pages(Arguments::command(), &dir).unwrap();
        let mut all = Vec::new();
        commands(&Arguments::command(), "", &mut all);
        assert!(all.len() > 25, "{all:?}");
        assert_eq!(written, all.len() + 1);
        for words in all {
            let name = format!("nublar-{}", words.replace(' ', "-"));
            let text = std::fs::read_to_string(dir.join(format!("{name}.1"))).unwrap();
            let head = text.split_once(".SH SYNOPSIS").unwrap().0;
            let says = head.split_once(" \\- ").map_or("", |(_, says)| says.trim());
            assert!(says.len() > 10, "{name} says nothing: {head}");
        }
    }

    #[test]
    fn shells_complete_every_command() {
        let mut all = Vec::new();
        commands(&Arguments::command(), "", &mut all);
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            completions(Arguments::command(), shell, &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            for words in &all {
                let last = words.rsplit(' ').next().unwrap();
                assert!(text.contains(last), "{shell} does not know {words}");
            }
        }
    }
}
