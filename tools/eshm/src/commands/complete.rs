//! `eshm completions`: for bash, zsh, fish, elvish and PowerShell.

use std::io::Write;

use clap::Command;
use clap_complete::Shell;

use crate::exit::Outcome;
use crate::output::Out;

/// Options of `eshm completions`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  eshm completions bash > ~/.local/share/bash-completion/completions/eshm"
)]
pub struct Args {
    /// The shell
    shell: Shell,
}

impl Args {
    /// Prints them.
    pub fn run(self, mut program: Command) -> Outcome {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut program, "eshm", &mut text);
        let mut out = Out::stdout(None)?;
        out.write_all(&text)?;
        out.flush()?;
        Ok(())
    }
}
