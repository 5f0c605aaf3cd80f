//! Progress on stderr: a bar where the end is known, a counter where it is not, nothing at all
//! where stderr is no terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{style, units};

/// How far a stream has come.
pub struct Progress {
    bar: ProgressBar,
    messages: u64,
    bytes: u64,
}

impl Progress {
    /// Shows what `verb` ("sent", "received") has done; `total` bytes if they are known.
    pub fn new(verb: &'static str, total: Option<u64>, quiet: bool) -> Progress {
        let shown = !quiet && std::io::stderr().is_terminal();
        let target = if shown {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(total, target).with_prefix(verb);
        bar.set_style(look(total.is_some()));
        if shown {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Progress { bar, messages: 0, bytes: 0 }
    }

    /// The end has become known: from now on a bar.
    pub fn set_total(&mut self, total: u64) {
        self.bar.set_length(total);
        self.bar.set_style(look(true));
    }

    /// Something was done before this process began.
    pub fn start_at(&mut self, bytes: u64) {
        self.bar.set_position(bytes);
        self.bar.reset_eta();
    }

    /// That many messages and bytes more.
    pub fn add(&mut self, messages: u64, bytes: u64) {
        self.messages += messages;
        self.bytes += bytes;
        self.bar.inc(bytes);
        if !self.bar.is_hidden() && self.bar.length().is_none() {
            self.bar.set_message(units::plural(self.messages, "message"));
        }
    }

    /// A line above the progress, said whether or not there is a terminal.
    pub fn say(&self, text: &str) {
        let line = format!("{} {}", style::stderr().dim("eshm:"), super::escape::line(text));
        if self.bar.is_hidden() { eprintln!("{line}") } else { self.bar.println(line) }
    }

    /// Messages so far.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the progress away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn look(bar: bool) -> ProgressStyle {
    let template = if bar {
        "{prefix} [{bar:30}] {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left"
    } else {
        "{prefix} {msg}  {binary_bytes}  {binary_bytes_per_sec}  {elapsed}"
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}
