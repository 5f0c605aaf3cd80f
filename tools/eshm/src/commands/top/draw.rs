//! `top` on a screen, from 80 columns and 24 lines on; smaller screens see less.

use eshm::{Direction, PeerState};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Block, BorderType, Paragraph, Row as TableRow, Sparkline, Table, TableState,
};

use crate::output::percentiles::{self, Summary};
use crate::output::{escape, json, units};

use super::model::{Heart, Model, NO_WAIT_NS, Row, Way};

/// Colours, or only bold and dim.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    colour: bool,
}

impl Theme {
    /// With or without colours.
    pub fn new(colour: bool) -> Theme {
        Theme { colour }
    }

    fn of(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn state(self, state: PeerState) -> Style {
        match state {
            PeerState::Alive => self.of(Color::Green),
            PeerState::Hung(_) | PeerState::Dead => {
                self.of(Color::Red).add_modifier(Modifier::BOLD)
            }
            PeerState::Absent | PeerState::Left => self.dim(),
        }
    }

    /// Greener or redder, as a ring fills.
    fn fill(self, share: f64) -> Style {
        self.of(match share {
            share if share > 0.9 => Color::Red,
            share if share > 0.5 => Color::Yellow,
            _ => Color::Cyan,
        })
    }
}

/// From this width on there is room for beats in the list.
const WIDE: u16 = 100;

/// Everything.
pub fn draw(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(header(model, theme), head);
    match model.chosen() {
        None => frame.render_widget(nothing(theme), body),
        Some(row) if model.shows_detail() => detail(frame, row, theme, body),
        Some(_) => overview(frame, model, theme, body),
    }
    frame.render_widget(keys(model, theme), foot);
}

fn header(model: &Model, theme: Theme) -> Line<'static> {
    let buses = model.rows().len();
    let mut spans = vec![
        Span::styled(" eshm top ", theme.bold().add_modifier(Modifier::REVERSED)),
        Span::raw(format!("  {buses} bus{}", if buses == 1 { "" } else { "es" })),
    ];
    if model.is_paused() {
        spans.push(Span::styled("  paused", theme.of(Color::Yellow)));
    }
    Line::from(spans)
}

fn keys(model: &Model, theme: Theme) -> Line<'static> {
    let enter = if model.shows_detail() { "all buses" } else { "detail" };
    let pause = if model.is_paused() { "go on" } else { "pause" };
    let mut spans = Vec::new();
    for (key, meaning) in
        [("↑↓", "choose"), ("enter", enter), ("p", pause), ("r", "reset histogram"), ("q", "quit")]
    {
        spans.push(Span::styled(format!(" {key} "), theme.bold()));
        spans.push(Span::styled(format!("{meaning}  "), theme.dim()));
    }
    Line::from(spans)
}

fn nothing(theme: Theme) -> Paragraph<'static> {
    let lines = vec![
        Line::default(),
        Line::raw("  No bus is here."),
        Line::styled(
            "  In two other terminals: eshm recv first, eshm send first. Or: eshm demo",
            theme.dim(),
        ),
    ];
    Paragraph::new(lines)
}

/// A line for each bus.
fn overview(frame: &mut Frame<'_>, model: &Model, theme: Theme, area: Rect) {
    let shows_beats = area.width >= WIDE;
    let heart = Constraint::Length(if shows_beats { 9 } else { 1 });
    let head = ["name", "M", "S", "m>s", "unread", "", "wait", "s>m", "unread", "", "wait"];
    let widths = [
        Constraint::Fill(1),
        heart,
        heart,
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(7),
    ];
    let rows = model.rows().iter().map(|row| overview_row(row, shows_beats, theme));
    let table = Table::new(rows, widths)
        .header(
            TableRow::new(head.map(heading)).style(theme.bold().add_modifier(Modifier::UNDERLINED)),
        )
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(Some(model.selected()));
    frame.render_stateful_widget(table, area, &mut state);
}

/// Names of numbers stand above their last digit.
fn heading(name: &'static str) -> Line<'static> {
    let number = matches!(name, "m>s" | "s>m" | "unread" | "wait");
    if number { Line::raw(name).right_aligned() } else { Line::raw(name) }
}

fn overview_row(row: &Row, shows_beats: bool, theme: Theme) -> TableRow<'static> {
    let mut cells = vec![Line::raw(escape::bytes(row.name().as_bytes()))];
    cells.extend(row.hearts.iter().map(|heart| {
        let mut spans = vec![Span::styled(mark(heart), theme.state(heart.state))];
        if shows_beats && heart.state == PeerState::Alive {
            spans.push(Span::styled(format!(" {}", units::rate(heart.rate)), theme.dim()));
        }
        Line::from(spans)
    }));
    for (direction, way) in Direction::BOTH.into_iter().zip(&row.ways) {
        let (_, ring) = row.ring(direction);
        let share = share(ring.backlog_frames, ring.frames);
        cells.push(Line::raw(units::rate(way.rate)).right_aligned());
        cells.push(Line::raw(short(ring.backlog)).right_aligned());
        cells.push(Line::styled(bar(share, 6), theme.fill(share)));
        cells.push(Line::raw(wait(way)).right_aligned());
    }
    TableRow::new(cells)
}

/// A letter that says a state without colours.
fn mark(heart: &Heart) -> &'static str {
    match heart.state {
        PeerState::Alive => "●",
        PeerState::Hung(_) => "H",
        PeerState::Dead => "X",
        PeerState::Left => "○",
        PeerState::Absent => "-",
    }
}

/// A count in at most six characters.
fn short(count: u64) -> String {
    if count < 1_000_000 {
        count.to_string()
    } else {
        units::rate(count as f64).replace("/s", "").replace(' ', "")
    }
}

fn wait(way: &Way) -> String {
    if way.waits.is_empty() {
        "-".to_string()
    } else {
        time(way.waits.value_at_percentile(50.0)).replace(' ', "")
    }
}

/// A wait; those too short for the estimate are none.
fn time(ns: u64) -> String {
    if ns <= NO_WAIT_NS { "0 ns".to_string() } else { units::nanos(ns) }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).clamp(0.0, 1.0) }
}

/// A bar in eighths of a character; something is never nothing.
fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 8 * width"
    )]
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

/// One bus: its roles, and each direction with its ring, its rates and its waits.
fn detail(frame: &mut Frame<'_>, row: &Row, theme: Theme, area: Rect) {
    let [top, down, up] =
        Layout::vertical([Constraint::Length(4), Constraint::Fill(1), Constraint::Fill(1)])
            .areas(area);
    frame.render_widget(Paragraph::new(about(row, theme)), top);
    for ((direction, way), area) in Direction::BOTH.into_iter().zip(&row.ways).zip([down, up]) {
        draw_way(frame, row, direction, way, theme, area);
    }
}

fn about(row: &Row, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = row.snapshot();
    let age = std::time::Duration::from_secs(json::age_s(snapshot));
    let mut lines = vec![Line::from(vec![
        Span::styled(format!(" {} ", escape::bytes(row.name().as_bytes())), theme.bold()),
        Span::styled(
            format!(
                " {}, {} old, {}, generation {}",
                units::bytes(snapshot.size),
                units::age(age),
                json::segment_state(snapshot.state),
                snapshot.generation
            ),
            theme.dim(),
        ),
    ])];
    for (name, heart) in ["master", "slave"].into_iter().zip(&row.hearts) {
        let state = Span::styled(heart.state.name(), theme.state(heart.state));
        let rest = match heart.state {
            PeerState::Absent => String::new(),
            _ => format!(", pid {}, epoch {}, {:.0} beats/s", heart.pid, heart.epoch, heart.rate),
        };
        lines.push(Line::from(vec![
            Span::raw(format!(" {} {name:<7}", mark(heart))),
            state,
            Span::raw(rest),
        ]));
    }
    lines
}

fn draw_way(
    frame: &mut Frame<'_>,
    row: &Row,
    direction: Direction,
    way: &Way,
    theme: Theme,
    area: Rect,
) {
    let title = match direction {
        Direction::MasterToSlave => " master > slave ",
        Direction::SlaveToMaster => " slave > master ",
    };
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(theme.dim())
        .title(Span::styled(title, theme.bold()));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [ring_area, numbers, below] =
        Layout::vertical([Constraint::Length(2), Constraint::Length(1), Constraint::Min(0)])
            .areas(inner);
    frame.render_widget(
        Paragraph::new(ring(row, direction, theme, usize::from(inner.width))),
        ring_area,
    );
    frame.render_widget(flow(row, direction, way, theme), numbers);
    let [curve, waits] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(44)]).spacing(2).areas(below);
    let newest = way.curve.len().saturating_sub(usize::from(curve.width));
    frame.render_widget(
        Sparkline::default().data(way.curve.iter().skip(newest)).style(theme.of(Color::Cyan)),
        curve,
    );
    frame.render_widget(Paragraph::new(histogram(way, theme, usize::from(below.height))), waits);
}

/// The ring, unrolled: what is unread, and the mark of its highest tide.
fn ring(row: &Row, direction: Direction, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let (geometry, ring) = row.ring(direction);
    let inside = width.saturating_sub(4);
    let full = share(ring.backlog_frames, ring.frames);
    let filled = bar(full, inside);
    let drawn = filled.chars().count();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the width"
    )]
    let tide =
        (share(ring.high_water, ring.frames) * inside.saturating_sub(1) as f64).round() as usize;
    let rest: String =
        (drawn..inside).map(|column| if column == tide { '│' } else { '·' }).collect();
    let line = Line::from(vec![
        Span::raw(" ["),
        Span::styled(filled, theme.fill(full)),
        Span::styled(rest, theme.dim()),
        Span::raw("]"),
    ]);
    let words = format!(
        "  {} unread in {} of {} frames of {} B, at most {}",
        units::count(ring.backlog),
        units::count(ring.backlog_frames),
        units::count(geometry.frames),
        geometry.frame_size,
        units::count(ring.high_water)
    );
    vec![line, Line::styled(words, theme.dim())]
}

fn flow(row: &Row, direction: Direction, way: &Way, theme: Theme) -> Line<'static> {
    let (_, ring) = row.ring(direction);
    let lost = Span::styled(
        format!("{} lost", units::count(ring.lost)),
        if ring.lost > 0 { theme.of(Color::Red) } else { theme.dim() },
    );
    Line::from(vec![
        Span::styled(format!("  {}", units::rate(way.rate)), theme.bold()),
        Span::raw(format!(
            "   {} written   {} full   ",
            units::count(ring.written),
            units::plural(ring.times_full, "time")
        )),
        lost,
    ])
}

/// How long messages wait, a bar for each power of two.
fn histogram(way: &Way, theme: Theme, height: usize) -> Vec<Line<'static>> {
    if way.waits.is_empty() {
        return vec![Line::styled("no message waits", theme.dim())];
    }
    let summary = Summary::of(&way.waits);
    let head = format!("wait ≈ p50 {}, p99 {}", time(summary.p50_ns), time(summary.p99_ns));
    let mut lines = vec![Line::styled(head, theme.dim())];
    let bands = percentiles::bands(&way.waits);
    let most = bands.iter().map(|band| band.2).max().unwrap_or(1).max(1);
    let rows = height.saturating_sub(1);
    let skipped = bands.len().saturating_sub(rows);
    for (low, _, count) in bands.into_iter().skip(skipped) {
        let filled = bar(count as f64 / most as f64, 26);
        lines.push(Line::from(vec![
            Span::raw(format!("{:>9} ", time(low))),
            Span::styled(filled, theme.of(Color::Cyan)),
        ]));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::super::model::tests::snapshot;
    use super::*;

    fn model() -> Model {
        let mut model = Model::new(None);
        for step in 0..=60 {
            let busy = snapshot("telemetry", step * 2000, 4096, step * 20);
            let nasty = snapshot("quiet.bus", 0, 0, step);
            model.take(Duration::from_millis(step * 20), vec![nasty, busy]);
        }
        model
    }

    fn screen(model: &Model, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model, Theme::new(true))).unwrap();
        let buffer = terminal.backend().buffer();
        let lines =
            (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>());
        lines.map(|line| line.trim_end().to_string()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn all_buses_fit_eighty_columns() {
        let text = screen(&model(), 80, 24);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("eshm top") && lines[0].contains("2 buses"), "{text}");
        assert!(lines[1].starts_with("name") && lines[1].ends_with("wait"), "{text}");
        let busy = lines.iter().find(|line| line.starts_with("telemetry")).unwrap();
        for part in ["●", "100 k/s", "4096", "███", "41.0ms"] {
            assert!(busy.contains(part), "{part} is not in {busy}");
        }
        assert!(lines.last().unwrap().contains("quit"), "{text}");
    }

    #[test]
    fn a_wide_screen_shows_beats_in_the_list() {
        let text = screen(&model(), 120, 24);
        let busy = text.lines().find(|line| line.starts_with("telemetry")).unwrap();
        assert!(busy.contains("● 1.0 k/s"), "{busy}");
    }

    #[test]
    fn messages_that_do_not_wait_wait_no_time() {
        assert_eq!(
            (time(0), time(NO_WAIT_NS), time(2)),
            ("0 ns".into(), "0 ns".into(), "2 ns".into())
        );
    }

    #[test]
    fn the_detail_draws_both_rings_and_the_histogram() {
        let mut model = model();
        model.key(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE));
        model.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE));
        let text = screen(&model, 80, 24);
        for part in [
            "master > slave",
            "slave > master",
            "4,096 unread in 4,096 of 8,192 frames",
            "wait ≈ p50 41.0 ms",
            "beats/s",
            "all buses",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let ring = text.lines().find(|line| line.contains('[')).unwrap();
        assert_eq!(ring.chars().filter(|&c| c == '█').count(), 37, "half of the ring: {ring}");
    }

    #[test]
    fn any_size_of_screen_is_survived() {
        let mut model = model();
        for _ in 0..2 {
            for (width, height) in [(1, 1), (10, 3), (40, 10), (80, 24), (200, 60), (300, 2)] {
                screen(&model, width, height);
            }
            model.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE));
        }
    }

    #[test]
    fn an_empty_machine_says_what_to_do() {
        assert!(screen(&Model::new(None), 80, 24).contains("eshm send first"));
    }
}
