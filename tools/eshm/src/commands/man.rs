//! `eshm man`: the manual page, made from the same words as `--help`.

use std::io::Write;
use std::path::PathBuf;

use clap::Command;
use clap_mangen::Man;

use crate::exit::{Failure, Outcome, SYSTEM};
use crate::output::Out;

/// Options of `eshm man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  eshm man | man -l -\n  eshm man ~/.local/share/man/man1")]
pub struct Args {
    /// Write eshm.1 and a page for each command into this directory
    directory: Option<PathBuf>,
}

impl Args {
    /// Prints the page, or writes all.
    pub fn run(self, program: Command) -> Outcome {
        if let Some(directory) = self.directory {
            return clap_mangen::generate_to(program, &directory).map_err(|error| {
                Failure::new(SYSTEM, format!("{}: {error}", directory.display()))
            });
        }
        let mut text = Vec::new();
        Man::new(program).render(&mut text)?;
        let mut out = Out::stdout(None)?;
        out.write_all(&text)?;
        out.flush()?;
        Ok(())
    }
}
