//! What `top` knows: each bus, how it moves, and what the person has chosen.

use std::collections::VecDeque;
use std::time::Duration;

use eshm::{Direction, Geometry, Peer, PeerState, RingStats, Snapshot};
use hdrhistogram::Histogram;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::clock;
use crate::output::percentiles;

/// Rates are taken over this long.
const WINDOW: Duration = Duration::from_secs(1);
/// A rate for each of that many steps is kept.
const CURVE: usize = 120;
/// How long a step is.
pub const CURVE_STEP: Duration = Duration::from_millis(500);
/// The shortest wait that is kept, a histogram knowing no zero: none at all.
pub const NO_WAIT_NS: u64 = 1;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Go on.
    Stay,
    /// End.
    Quit,
}

/// All of it.
pub struct Model {
    rows: Vec<Row>,
    selected: usize,
    /// The bus whose detail is shown, here or not.
    subject: Option<Subject>,
    paused: bool,
}

/// The bus that the detail is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// Whether it was here at some time.
    pub was_here: bool,
}

impl Model {
    /// Nothing seen yet; begins with the detail of `wanted`.
    pub fn new(wanted: Option<String>) -> Model {
        let subject = wanted.map(|name| Subject { name, was_here: false });
        Model { rows: Vec::new(), selected: 0, subject, paused: false }
    }

    /// A look at all buses, taken at `now`.
    pub fn take(&mut self, now: Duration, snapshots: Vec<Snapshot>) {
        if self.paused {
            return;
        }
        let subject = self.subject.as_ref().map(|subject| subject.name.clone());
        let chosen = subject.or_else(|| self.chosen().map(|row| row.name().to_string()));
        let mut old: Vec<Row> = std::mem::take(&mut self.rows);
        for snapshot in snapshots {
            // Another segment under the same name begins anew.
            let known = old.iter().position(|row| {
                row.name() == snapshot.name && row.snapshot.created == snapshot.created
            });
            let mut row =
                known.map_or_else(|| Row::new(&snapshot, now), |index| old.swap_remove(index));
            row.take(now, snapshot);
            self.rows.push(row);
        }
        let found =
            chosen.as_ref().and_then(|name| self.rows.iter().position(|row| row.name() == name));
        self.selected = found.unwrap_or(self.selected).min(self.rows.len().saturating_sub(1));
        if let Some(subject) = &mut self.subject {
            subject.was_here |= found.is_some();
        }
    }

    /// Chooses a row; the detail, if shown, is then about it.
    fn choose(&mut self, index: usize) {
        self.selected = index;
        if self.subject.is_some() {
            self.show_detail();
        }
    }

    fn show_detail(&mut self) {
        let row = self.rows.get(self.selected);
        self.subject = row.map(|row| Subject { name: row.name().to_string(), was_here: true });
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Action {
        let last = self.rows.len().saturating_sub(1);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Action::Quit;
            }
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Esc if self.subject.is_some() => self.subject = None,
            KeyCode::Esc => return Action::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.choose(self.selected.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose((self.selected + 1).min(last)),
            KeyCode::Home => self.choose(0),
            KeyCode::End => self.choose(last),
            KeyCode::Enter if self.subject.is_some() => self.subject = None,
            KeyCode::Enter => self.show_detail(),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('r') => self.rows.iter_mut().for_each(Row::reset),
            _ => {}
        }
        Action::Stay
    }

    /// The buses, by name.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Which one is chosen.
    pub fn selected(&self) -> usize {
        self.selected
    }

    /// The chosen one; in the detail the one that this is about, if it is here.
    pub fn chosen(&self) -> Option<&Row> {
        match &self.subject {
            Some(subject) => self.rows.iter().find(|row| row.name() == subject.name),
            None => self.rows.get(self.selected),
        }
    }

    /// What the detail is about, if it is to be shown.
    pub fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
    }

    /// Whether time stands still.
    pub fn is_paused(&self) -> bool {
        self.paused
    }
}

/// One bus.
pub struct Row {
    snapshot: Snapshot,
    /// How each direction moves, in the order of [`Direction::BOTH`].
    pub ways: [Way; 2],
    /// How each role beats: master, slave.
    pub hearts: [Heart; 2],
}

impl Row {
    fn new(snapshot: &Snapshot, now: Duration) -> Row {
        Row {
            snapshot: snapshot.clone(),
            ways: [Way::new(now), Way::new(now)],
            hearts: [Heart::new(now), Heart::new(now)],
        }
    }

    fn take(&mut self, now: Duration, snapshot: Snapshot) {
        let stats = &snapshot.stats;
        self.ways[0].take(now, &stats.master_to_slave);
        self.ways[1].take(now, &stats.slave_to_master);
        self.hearts[0].take(now, &stats.master, snapshot.stale_after);
        self.hearts[1].take(now, &stats.slave, snapshot.stale_after);
        self.snapshot = snapshot;
    }

    fn reset(&mut self) {
        self.ways.iter_mut().for_each(|way| way.waits.reset());
    }

    /// The name of the bus.
    pub fn name(&self) -> &str {
        &self.snapshot.name
    }

    /// The last look at it.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// A direction's shape and numbers.
    pub fn ring(&self, direction: Direction) -> (Geometry, &RingStats) {
        match direction {
            Direction::MasterToSlave => {
                (self.snapshot.master_to_slave, &self.snapshot.stats.master_to_slave)
            }
            Direction::SlaveToMaster => {
                (self.snapshot.slave_to_master, &self.snapshot.stats.slave_to_master)
            }
        }
    }
}

/// How one direction moves.
pub struct Way {
    seen: VecDeque<(Duration, u64)>,
    /// Messages per second, now.
    pub rate: f64,
    /// Messages per second, each half second.
    pub curve: VecDeque<u64>,
    curve_at: Duration,
    /// How long messages lie in the ring, estimated.
    pub waits: Histogram<u64>,
}

impl Way {
    fn new(now: Duration) -> Way {
        Way {
            seen: VecDeque::new(),
            rate: 0.0,
            curve: VecDeque::new(),
            curve_at: now,
            waits: percentiles::histogram(),
        }
    }

    fn take(&mut self, now: Duration, ring: &RingStats) {
        self.seen.push_back((now, ring.read));
        while self.seen.len() > 2
            && self.seen.front().is_some_and(|first| now.saturating_sub(first.0) > WINDOW)
        {
            self.seen.pop_front();
        }
        if let Some(&(at, read)) = self.seen.front()
            && now > at
        {
            self.rate = ring.read.saturating_sub(read) as f64 / (now - at).as_secs_f64();
        }
        if self.rate > 0.0 {
            // Little's law: the mean wait is what waits, divided by how fast it goes.
            let wait = Duration::from_secs_f64((ring.backlog as f64 / self.rate).min(60.0));
            self.waits.saturating_record(clock::ns(wait).max(NO_WAIT_NS));
        }
        if now.saturating_sub(self.curve_at) >= CURVE_STEP {
            self.curve_at = now;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate is no negative number"
            )]
            self.curve.push_back(self.rate as u64);
            if self.curve.len() > CURVE {
                self.curve.pop_front();
            }
        }
    }
}

/// How one role beats.
#[derive(Debug, Clone, Copy)]
pub struct Heart {
    beats: u64,
    moved_at: Duration,
    since: (Duration, u64),
    /// Beats per second.
    pub rate: f64,
    /// Alive, hung and so on.
    pub state: PeerState,
    /// The process.
    pub who: Peer,
    /// How many owners the role had.
    pub epoch: u64,
}

impl Heart {
    fn new(now: Duration) -> Heart {
        Heart {
            beats: 0,
            moved_at: now,
            since: (now, 0),
            rate: 0.0,
            state: PeerState::Absent,
            who: Peer::default(),
            epoch: 0,
        }
    }

    fn take(&mut self, now: Duration, role: &Peer, stale_after: Duration) {
        if role.beats != self.beats || role.epoch != self.epoch {
            if role.epoch != self.epoch {
                self.since = (now, role.beats);
            }
            self.beats = role.beats;
            self.moved_at = now;
        }
        let (at, beats) = self.since;
        if now.saturating_sub(at) >= WINDOW {
            self.rate = role.beats.saturating_sub(beats) as f64 / (now - at).as_secs_f64();
            self.since = (now, role.beats);
        }
        let silent = now.saturating_sub(self.moved_at);
        let hangs = match role.state {
            PeerState::Alive => silent > stale_after,
            PeerState::Hung(_) => true,
            _ => false,
        };
        (self.who, self.epoch) = (*role, role.epoch);
        self.state = if hangs { PeerState::Hung(silent.max(stale_after)) } else { role.state };
    }
}

#[cfg(test)]
pub mod tests {
    use std::sync::LazyLock;

    use eshm::{Options, Role, Schema};

    use super::*;
    use crate::output::percentiles::Summary;

    /// A bus with figures that a test makes up; all else is that of a real one.
    pub fn snapshot(name: &str, read: u64, backlog: u64, beats: u64) -> Snapshot {
        static REAL: LazyLock<Snapshot> = LazyLock::new(|| {
            let directory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
            let mut options = Options::new("real");
            options.directory(directory.path()).role(Role::Master);
            let _bus = options.writes(Schema::new("telemetry", 3)).open().expect("a bus");
            eshm::inspect_in(directory.path(), "real").expect("it is there")
        });
        let mut snapshot = REAL.clone();
        snapshot.name = name.into();
        snapshot.stats.master.beats = beats;
        let ring = &mut snapshot.stats.master_to_slave;
        (ring.written, ring.read, ring.backlog) = (read + backlog, read, backlog);
        (ring.backlog_frames, ring.high_water) = (backlog, backlog);
        snapshot
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn press(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    #[test]
    fn rates_waits_and_beats_come_from_what_moved() {
        let mut model = Model::new(None);
        for step in 0..=100 {
            model.take(at(step * 20), vec![snapshot("a", step * 200, 100, step * 20)]);
        }
        let row = model.chosen().unwrap();
        assert!((row.ways[0].rate - 10_000.0).abs() < 1.0, "{}", row.ways[0].rate);
        let wait = Summary::of(&row.ways[0].waits).p50_ns;
        assert!(
            (9_900_000..10_100_000).contains(&wait),
            "100 unread at 10 k/s wait 10 ms, not {wait} ns"
        );
        assert!((row.hearts[0].rate - 1000.0).abs() < 1.0, "{}", row.hearts[0].rate);
        assert_eq!(row.hearts[0].state, PeerState::Alive);
        assert_eq!(row.ways[0].curve.len(), 4);
    }

    #[test]
    fn a_heart_that_stands_still_is_hung_after_the_threshold() {
        let mut model = Model::new(None);
        for step in 0..=10 {
            model.take(at(step * 20), vec![snapshot("a", 0, 0, 5)]);
        }
        // For as long as was looked on, not only for the threshold.
        assert_eq!(model.chosen().unwrap().hearts[0].state, PeerState::Hung(at(200)));
        model.take(at(220), vec![snapshot("a", 0, 0, 6)]);
        assert_eq!(model.chosen().unwrap().hearts[0].state, PeerState::Alive);
    }

    #[test]
    fn the_choice_stays_with_its_bus() {
        let mut model = Model::new(None);
        let two = |a: &str, b: &str| vec![snapshot(a, 0, 0, 1), snapshot(b, 0, 0, 1)];
        model.take(at(0), two("b", "c"));
        model.key(press(KeyCode::Down));
        model.take(at(20), two("a", "c"));
        assert_eq!(model.chosen().unwrap().name(), "c");
        model.take(at(40), vec![snapshot("a", 0, 0, 1)]);
        assert_eq!(model.chosen().unwrap().name(), "a");
        model.take(at(60), vec![]);
        assert!(model.chosen().is_none());
    }

    #[test]
    fn the_detail_stays_with_its_bus_even_when_that_is_gone() {
        let mut model = Model::new(Some("nosuch".into()));
        model.take(at(0), vec![snapshot("a", 0, 0, 1), snapshot("b", 0, 0, 1)]);
        assert!(model.chosen().is_none() && !model.subject().unwrap().was_here);
        model.key(press(KeyCode::Enter));
        assert_eq!(model.chosen().unwrap().name(), "a");
        model.key(press(KeyCode::Enter));
        model.take(at(20), vec![snapshot("b", 0, 0, 1)]);
        assert!(model.chosen().is_none(), "not its neighbour");
        assert_eq!(model.subject(), Some(&Subject { name: "a".into(), was_here: true }));
        model.take(at(40), vec![snapshot("a", 0, 0, 1), snapshot("b", 0, 0, 1)]);
        assert_eq!(model.chosen().unwrap().name(), "a", "it is back");
        model.key(press(KeyCode::Down));
        assert_eq!(model.chosen().unwrap().name(), "b");
    }

    #[test]
    fn keys_do_what_is_written_on_the_screen() {
        let mut model = Model::new(None);
        model.take(at(0), vec![snapshot("a", 0, 0, 1)]);
        assert_eq!(model.key(press(KeyCode::Enter)), Action::Stay);
        assert!(model.subject().is_some());
        assert_eq!(model.key(press(KeyCode::Esc)), Action::Stay);
        assert!(model.subject().is_none());
        model.key(press(KeyCode::Char('p')));
        model.take(at(20), vec![]);
        assert!(model.is_paused() && model.rows().len() == 1);
        assert_eq!(model.key(press(KeyCode::Esc)), Action::Quit);
        assert_eq!(
            model.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)),
            Action::Quit
        );
    }
}
