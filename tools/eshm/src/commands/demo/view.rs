//! The demo on the screen: a story that grows, and below it a panel that lives.
//!
//! Without a terminal the panel becomes one plain line a second.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};

use crate::output::style::{self, Paint};
use crate::output::units::{count, nanos, rate};

use super::event::Tick;

/// Ticks that the curve of rates shows.
const CURVE: usize = 48;

/// What the panel shows.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    pub name: String,
    pub master: String,
    pub slave: String,
    pub master_ok: bool,
    pub tick: Tick,
    pub rates: VecDeque<f64>,
    pub elapsed_s: f64,
    pub total_s: f64,
}

impl Panel {
    /// Takes in what the slave counted, and how fast it went since the last time.
    pub fn update(&mut self, tick: Tick) {
        let ns = tick.at_ns.saturating_sub(self.tick.at_ns);
        if self.tick.at_ns > 0 && ns > 0 {
            let more = tick.received.saturating_sub(self.tick.received);
            self.rates.push_back(more as f64 * 1e9 / ns as f64);
            if self.rates.len() > CURVE {
                self.rates.pop_front();
            }
        }
        self.tick = tick;
    }

    fn rate(&self) -> f64 {
        self.rates.back().copied().unwrap_or(0.0)
    }

    /// The panel's lines.
    pub fn lines(&self, paint: Paint) -> Vec<String> {
        let tick = &self.tick;
        let light = if self.master_ok { paint.green("●") } else { paint.red("●") };
        let (good, bad) = (|text: String| paint.green(text), |text: String| paint.red(text));
        let faults = tick.lost + tick.doubled + tick.torn;
        let verdict = format!("lost {}   doubled {}   torn {}", tick.lost, tick.doubled, tick.torn);
        let label = |text: &str| paint.dim(format!("{text:<9}"));
        vec![
            String::new(),
            format!("  {light} {} {}", label("master"), self.master),
            format!("  {} {} {}", paint.green("●"), label("slave"), self.slave),
            format!(
                "    {} {:<10}  {}",
                label("rate"),
                rate(self.rate()),
                paint.cyan(curve(&self.rates))
            ),
            format!(
                "    {} {:<10}  {}",
                label("backlog"),
                count(tick.backlog),
                paint.yellow(bar(tick.backlog))
            ),
            format!(
                "    {} p50 {}   p99 {}   p99.9 {}   max {}",
                label("latency"),
                nanos(tick.p50_ns),
                nanos(tick.p99_ns),
                nanos(tick.p999_ns),
                nanos(tick.max_ns)
            ),
            format!(
                "    {} {} master, {} slave",
                label("beats"),
                count(tick.master_beats),
                count(tick.slave_beats)
            ),
            format!(
                "    {} {:<12}  {}",
                label("received"),
                count(tick.received),
                if faults == 0 { good(verdict) } else { bad(verdict) }
            ),
            format!(
                "    {} {}",
                clock(self.elapsed_s, self.total_s),
                paint.dim(format!("look on with: eshm top {:.24}", self.name))
            ),
        ]
    }

    /// The panel in one line.
    pub fn line(&self) -> String {
        let tick = &self.tick;
        format!(
            "{:>5.1} s  {:>9}  backlog {:>4}  p50 {:>7}  p99 {:>7}  received {:>9}  lost {} doubled {} torn {}",
            self.elapsed_s,
            rate(self.rate()),
            count(tick.backlog),
            nanos(tick.p50_ns),
            nanos(tick.p99_ns),
            count(tick.received),
            tick.lost,
            tick.doubled,
            tick.torn,
        )
    }
}

/// Rates as a curve of blocks, each column a tick, relative to the highest.
fn curve(rates: &VecDeque<f64>) -> String {
    const STEPS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = rates.iter().copied().fold(1.0, f64::max);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 8")]
    let step = |rate: &f64| STEPS[((rate / highest * 8.0).round() as usize).min(8)];
    rates.iter().map(step).collect()
}

/// A bar that grows with the order of magnitude.
fn bar(backlog: u64) -> String {
    "▊".repeat((u64::BITS - backlog.leading_zeros()) as usize)
}

fn clock(elapsed_s: f64, total_s: f64) -> String {
    const WIDTH: usize = 20;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 20")]
    let done = ((elapsed_s / total_s.max(0.1)).clamp(0.0, 1.0) * WIDTH as f64) as usize;
    format!("{}{} {elapsed_s:>4.1} s  ", "━".repeat(done), "─".repeat(WIDTH - done))
}

/// Where the show goes.
pub struct Screen {
    live: bool,
    silent: bool,
    paint: Paint,
    drawn: usize,
    lines_at_s: f64,
}

impl Screen {
    /// The terminal, or plain lines; nothing at all if `silent`.
    pub fn new(silent: bool) -> Screen {
        let wide = ratatui::crossterm::terminal::size().is_ok_and(|(columns, _)| columns >= 80);
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let live = io::stdout().is_terminal() && wide && !dumb;
        Screen { live, silent, paint: style::stdout(), drawn: 0, lines_at_s: 1.0 }
    }

    /// How to paint on it.
    pub fn paint(&self) -> Paint {
        self.paint
    }

    /// One more line of the story.
    pub fn say(&mut self, elapsed_s: f64, text: &str) -> io::Result<()> {
        let stamp = self.paint.dim(format!("{elapsed_s:>5.1} s"));
        self.print(&format!("  {stamp}  {text}\n"))
    }

    /// Text that stays.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        if self.silent {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        write!(stdout, "{}{text}", self.erase())?;
        self.drawn = 0;
        stdout.flush()
    }

    /// The panel as it is now.
    pub fn show(&mut self, panel: &Panel) -> io::Result<()> {
        if self.silent {
            return Ok(());
        }
        if !self.live {
            if panel.elapsed_s >= self.lines_at_s {
                self.lines_at_s += 1.0;
                return self.print(&format!("{}\n", panel.line()));
            }
            return Ok(());
        }
        let lines = panel.lines(self.paint);
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}{}", self.erase(), lines.join("\n"))?;
        self.drawn = lines.len();
        stdout.flush()
    }

    /// Moves back over the panel and clears it.
    fn erase(&self) -> String {
        if self.drawn > 0 { format!("\x1b[{}A\r\x1b[J", self.drawn) } else { String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel() -> Panel {
        let mut panel = Panel {
            name: "demo-7".into(),
            master: "pid 1, epoch 2, alive".into(),
            slave: "pid 2, alive".into(),
            total_s: 15.0,
            elapsed_s: 7.5,
            ..Panel::default()
        };
        for tick in 1..=60 {
            panel.update(Tick {
                at_ns: tick * 100_000_000,
                received: tick * 10_000,
                backlog: 3,
                p50_ns: 900,
                p99_ns: 4100,
                ..Tick::default()
            });
        }
        panel
    }

    #[test]
    fn the_panel_fits_a_narrow_terminal() {
        for line in panel().lines(Paint::OFF) {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
    }

    #[test]
    fn the_plain_line_tells_the_same() {
        let expected = "  7.5 s  100.0 k/s  backlog    3  p50  900 ns  p99  4.1 µs  received   600,000  lost 0 doubled 0 torn 0";
        assert_eq!(
            panel().line().replace("100 k/s", "100.0 k/s").replace("    100.0", "  100.0"),
            expected
        );
    }
}
