//! Colours: only on a terminal, never with NO_COLOR, never where the terminal is dumb.

use std::env;
use std::io::{self, IsTerminal};

/// Paints, or does not.
#[derive(Debug, Clone, Copy)]
pub struct Paint(bool);

/// For text that goes to stdout.
pub fn stdout() -> Paint {
    Paint(io::stdout().is_terminal() && wanted())
}

/// For text that goes to stderr.
pub fn stderr() -> Paint {
    Paint(stderr_has_colour())
}

/// Whether stderr shows colours.
pub fn stderr_has_colour() -> bool {
    io::stderr().is_terminal() && wanted()
}

/// Whether the environment lets a terminal have colours.
pub fn wanted() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

macro_rules! shades {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl Paint {
            $($(#[$doc])* pub fn $name(self, text: impl std::fmt::Display) -> String {
                self.with($code, text)
            })*
        }
    };
}

shades! {
    /// What matters most.
    bold = "1";
    /// What matters least.
    dim = "2";
    /// Something is wrong.
    red = "31";
    /// All is well.
    green = "32";
    /// Worth a look.
    yellow = "33";
    /// A name or a number to find with the eye.
    cyan = "36";
}

impl Paint {
    /// Never paints.
    #[cfg(test)]
    pub const OFF: Paint = Paint(false);

    fn with(self, code: &str, text: impl std::fmt::Display) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}
