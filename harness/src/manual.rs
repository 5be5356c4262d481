//! What a shell completes by and what `man` shows: both are made from the command line as it is parsed, and so never differ from it.

use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::{Cli, complain};
use crate::{exit, stdout};

/// Prints the script that teaches a shell the commands and options; returns the exit code.
pub fn completions(shell: Shell) -> i32 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "seckill", &mut script);
    stdout::print(&script);
    exit::PASS
}

/// Prints the manual page of the program, or writes one for it and for each command into a folder, which is made if it is not
/// there; returns the exit code.
pub fn pages(folder: Option<&Path>) -> i32 {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        if let Err(error) = clap_mangen::Man::new(Cli::command()).render(&mut page) {
            return complain(&format!("cannot write the manual page: {error}"), exit::INTERNAL);
        }
        stdout::print(&page);
        return exit::PASS;
    };
    match written(folder) {
        Ok(pages) => {
            eprintln!(
                "{} manual pages in {}; `man -l {}`",
                pages.len(),
                folder.display(),
                folder.join("seckill.1").display()
            );
            exit::PASS
        }
        Err(error) => complain(
            &format!(
                "cannot write manual pages into {}: {error}\nhelp: --out names a folder that can be written",
                folder.display()
            ),
            exit::USAGE,
        ),
    }
}

fn written(folder: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    let entries =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    Ok(entries.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "1")).collect())
}
