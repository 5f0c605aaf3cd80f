//! `top` on a screen, from 80 columns and 24 lines on; smaller screens see less.

use eshm::{Direction, PeerState};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Block, BorderType, Paragraph, Row as TableRow, Sparkline, Table, TableState, Wrap,
};

use crate::clock;
use crate::output::percentiles::{self, Summary};
use crate::output::{escape, json, pid, units};

use super::model::{CURVE_STEP, Heart, Model, NO_WAIT_NS, Row, Subject, Way};

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
/// Below this width the list has no bars and no waits.
const FULL: u16 = 72;
/// Below this width it has what is unread as its only number, and the detail is a list of words.
const NARROW: u16 = 48;
/// Below this nothing can be told.
const LEAST: (u16, u16) = (16, 4);

/// Everything.
pub fn draw(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let words = format!("needs {} x {}", LEAST.0, LEAST.1);
        frame.render_widget(Paragraph::new(words).wrap(Wrap { trim: true }), area);
        return;
    }
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
            .areas(area);
    frame.render_widget(header(model, theme), head);
    match (model.subject(), model.chosen()) {
        (Some(subject), None) => frame.render_widget(gone(subject, theme), body),
        (Some(_), Some(row)) if area.width < NARROW => {
            frame.render_widget(words(row, theme), body);
        }
        (Some(_), Some(row)) => detail(frame, row, theme, body),
        (None, None) => frame.render_widget(nothing(theme), body),
        (None, Some(_)) => overview(frame, model, theme, body),
    }
    frame.render_widget(keys(model, theme, area.width), foot);
}

/// In the place of the detail of a bus that is not here.
fn gone(subject: &Subject, theme: Theme) -> Paragraph<'static> {
    let name = escape::bytes(subject.name.as_bytes());
    let (what, then) = if subject.was_here {
        (format!(" {name} is gone."), " It is shown again should it come back.")
    } else {
        (format!(" No bus {name} is here."), " It is shown when it comes.")
    };
    let lines = vec![
        Line::default(),
        Line::styled(what, theme.bold()),
        Line::styled(then, theme.dim()),
        Line::styled(" enter: all buses", theme.dim()),
    ];
    Paragraph::new(lines).wrap(Wrap { trim: false })
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

fn keys(model: &Model, theme: Theme, width: u16) -> Line<'static> {
    if width < FULL {
        return Line::styled(" ↑↓ enter p r q", theme.bold());
    }
    let enter = if model.subject().is_some() { "all buses" } else { "detail" };
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
    Paragraph::new(lines).wrap(Wrap { trim: false })
}

/// A line for each bus.
fn overview(frame: &mut Frame<'_>, model: &Model, theme: Theme, area: Rect) {
    let heart = if area.width >= WIDE { 9 } else { 1 };
    let mut columns = vec![("name", 0), ("M", heart), ("S", heart)];
    match area.width {
        FULL.. => {
            columns.extend([("m>s", 8), ("unread", 6), ("", 6), ("wait", 7)]);
            columns.extend([("s>m", 8), ("unread", 6), ("", 6), ("wait", 7)]);
        }
        NARROW..FULL => columns.extend([("m>s", 8), ("unread", 6), ("s>m", 8), ("unread", 6)]),
        _ => columns.push(("unread", 6)),
    }
    let widths = columns.iter().map(|&(_, width)| match width {
        0 => Constraint::Fill(1),
        width => Constraint::Length(width),
    });
    let head = columns.iter().map(|&(name, _)| heading(name));
    let rows = model.rows().iter().map(|row| overview_row(row, area.width, theme));
    let table = Table::new(rows, widths)
        .header(TableRow::new(head).style(theme.bold().add_modifier(Modifier::UNDERLINED)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(Some(model.selected()));
    frame.render_stateful_widget(table, area, &mut state);
}

/// Names of numbers stand above their last digit.
fn heading(name: &'static str) -> Line<'static> {
    let number = matches!(name, "m>s" | "s>m" | "unread" | "wait");
    if number { Line::raw(name).right_aligned() } else { Line::raw(name) }
}

fn overview_row(row: &Row, width: u16, theme: Theme) -> TableRow<'static> {
    let mut cells = vec![Line::raw(escape::bytes(row.name().as_bytes()))];
    cells.extend(row.hearts.iter().map(|heart| {
        let mut spans = vec![Span::styled(mark(heart), theme.state(heart.state))];
        if width >= WIDE && heart.state == PeerState::Alive {
            spans.push(Span::styled(format!(" {}", units::rate(heart.rate)), theme.dim()));
        }
        Line::from(spans)
    }));
    if width < NARROW {
        let both = Direction::BOTH.map(|direction| row.ring(direction).1.backlog);
        cells.push(Line::raw(short(both[0] + both[1])).right_aligned());
        return TableRow::new(cells);
    }
    for (direction, way) in Direction::BOTH.into_iter().zip(&row.ways) {
        let (_, ring) = row.ring(direction);
        let share = share(ring.backlog_frames, ring.frames);
        cells.push(Line::raw(units::rate(way.rate)).right_aligned());
        cells.push(Line::raw(short(ring.backlog)).right_aligned());
        if width >= FULL {
            cells.push(Line::styled(bar(share, 6), theme.fill(share)));
            cells.push(Line::raw(wait(way)).right_aligned());
        }
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

/// One bus on a narrow screen: what there is to say, a few words a line.
fn words(row: &Row, theme: Theme) -> Paragraph<'static> {
    let mut lines = vec![Line::styled(escape::bytes(row.name().as_bytes()), theme.bold())];
    for (name, heart) in ["master", "slave"].into_iter().zip(&row.hearts) {
        lines.push(Line::from(vec![
            Span::raw(format!("{} {name} ", mark(heart))),
            Span::styled(heart.state.name(), theme.state(heart.state)),
        ]));
    }
    for (direction, way) in Direction::BOTH.into_iter().zip(&row.ways) {
        let (_, ring) = row.ring(direction);
        lines.push(Line::styled(direction.to_string(), theme.bold()));
        lines.push(Line::raw(format!(" {}", units::rate(way.rate))));
        let full = share(ring.backlog_frames, ring.frames) * 100.0;
        lines.push(Line::raw(format!(" {} unread, {full:.0} %", short(ring.backlog))));
        lines.push(Line::raw(format!(" wait {}", wait(way))));
    }
    Paragraph::new(lines).wrap(Wrap { trim: false })
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
            state => {
                let silent = match state {
                    PeerState::Hung(silent) => {
                        format!(" for at least {}", units::nanos(clock::ns(silent)))
                    }
                    _ => String::new(),
                };
                let who = pid::of(&heart.who);
                format!("{silent}, {who}, epoch {}, {:.0} beats/s", heart.epoch, heart.rate)
            }
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
    let way_name = match direction {
        Direction::MasterToSlave => "master > slave",
        Direction::SlaveToMaster => "slave > master",
    };
    let schema = row.snapshot().schemas[direction as usize].as_ref().map(|schema| {
        format!(": {}:{}", escape::bytes(schema.name().as_bytes()), schema.version())
    });
    let title = format!(" {way_name}{} ", schema.unwrap_or_default());
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
    let wide = if area.width < FULL { 24 } else { 44 };
    let [left, waits] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(wide)]).spacing(2).areas(below);
    let [label, curve] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(left);
    let newest = way.curve.len().saturating_sub(usize::from(curve.width));
    let shown = || way.curve.iter().skip(newest);
    frame.render_widget(Line::styled(curve_label(shown()), theme.dim()), label);
    frame.render_widget(Sparkline::default().data(shown()).style(theme.of(Color::Cyan)), curve);
    let size = (usize::from(wide), usize::from(below.height));
    frame.render_widget(Paragraph::new(histogram(way, theme, size)), waits);
}

/// What the curve is, how long it is, and how high.
fn curve_label<'a>(rates: impl Iterator<Item = &'a u64> + Clone) -> String {
    let Some(&most) = rates.clone().max() else { return "rate".to_string() };
    let seconds = rates.count() as f64 * CURVE_STEP.as_secs_f64();
    format!("rate, {seconds:.0} s, top {}", units::rate(most as f64))
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
fn histogram(way: &Way, theme: Theme, size: (usize, usize)) -> Vec<Line<'static>> {
    let (width, height) = size;
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
        let filled = bar(count as f64 / most as f64, width.saturating_sub(18));
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
            "master > slave: telemetry:3",
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
    fn the_curve_says_what_it_is() {
        let mut model = model();
        model.key(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE));
        model.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE));
        let text = screen(&model, 80, 24);
        assert!(text.contains("rate, 1 s, top 100 k/s"), "{text}");
    }

    #[test]
    fn a_bus_that_is_not_here_is_not_replaced_by_another() {
        let mut absent = Model::new(Some("nosuch".into()));
        absent.take(Duration::ZERO, vec![snapshot("other", 0, 0, 1)]);
        let text = screen(&absent, 80, 24);
        assert!(text.contains("No bus nosuch is here") && !text.contains("other"), "{text}");
        let mut left = Model::new(Some("a".into()));
        left.take(Duration::ZERO, vec![snapshot("a", 0, 0, 1), snapshot("b", 0, 0, 1)]);
        left.take(Duration::from_millis(20), vec![snapshot("b", 0, 0, 1)]);
        let text = screen(&left, 80, 24);
        assert!(text.contains("a is gone") && !text.contains("master"), "{text}");
    }

    #[test]
    fn a_narrow_screen_tells_the_most_important() {
        let mut model = model();
        let text = screen(&model, 20, 10);
        assert!(
            text.lines().any(|line| line.starts_with("telem") && line.ends_with("4096")),
            "{text}"
        );
        assert!(text.contains("●") && text.contains('q'), "{text}");
        model.key(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE));
        model.key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE));
        let text = screen(&model, 20, 14);
        for part in ["telemetry", "master alive", "100 k/s", "4096 unread, 50 %", "wait 41.0ms"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(screen(&model, 15, 10).contains("needs 16 x 4"));
        let medium = screen(&Model::new(None), 40, 10);
        assert!(medium.contains("eshm demo"), "{medium}");
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
