//! The parent's side of a scene: the peer, what went before, and the reckoning afterwards.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use eshm::{Endpoint, Error, Role, Takeover};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::ledger::{Answer, Fate, Page, Stream, Told, message, seq_of};
use super::race::{Ear, Reckoning, drain};
use super::scene::{ACT, AFTER, Op, PROBE, SHORT, Scene, TORN};
use super::trace::{Stop, Traced};
use super::{be_patient, leftovers};

/// Numbers of the messages that close a proof.
const FINAL: u64 = 9000;

type Sleeper = JoinHandle<(Endpoint, Result<Vec<u8>, Error>)>;

/// One child, about to perform its operation, and everybody else.
pub struct Stage {
    pub scene: Scene,
    pub child: Option<Traced>,
    /// An endpoint that somebody fenced, or is about to fence. It leaves before the others, as long as
    /// there is a bus to look for.
    victim: Option<Endpoint>,
    peer: Option<Endpoint>,
    /// The peer, in a thread of its own, in a call that waits.
    sleeper: Option<Sleeper>,
    /// Written by the child's role.
    out: Stream,
    /// Written by its peer.
    back: Stream,
    /// Read by those who went on, apart from what the child read.
    after: Vec<u64>,
    has_idled: bool,
    /// Listens to what the child writes.
    ear: Option<Ear>,
    /// What the first successor found committed.
    committed: Option<u64>,
    /// Whether a frozen child goes on before anybody else has noticed that it was replaced; then the
    /// others look at messages before they consume them.
    pub is_hasty: bool,
    /// Whether the peer comes anew before it reads what the cut has left, where messages are overwritten.
    pub is_anew: bool,
    /// How many messages were read before the operation began, by the peer and by the child.
    before: [usize; 2],
}

/// What is to become of the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Killed,
    Frozen,
    /// Not at all: it was only told of an error.
    Spared,
}

impl Stage {
    /// Everything up to the first instruction of the operation.
    pub fn set(op: Op, role: Role, page: &'static Page, name: String) -> Stage {
        Stage::set_scene(Scene { op, role, name, page, failpoints: None })
    }

    /// The same for a scene with more wishes.
    pub fn set_scene(scene: Scene) -> Stage {
        be_patient();
        let page = scene.page;
        page.clear();
        let mut stage = Stage {
            scene,
            child: None,
            peer: None,
            victim: None,
            sleeper: None,
            out: Stream::default(),
            back: Stream::default(),
            after: Vec::new(),
            has_idled: false,
            ear: None,
            committed: None,
            is_hasty: false,
            is_anew: false,
            before: [0; 2],
        };
        stage.open_bus();
        stage.ear = stage.scene.op.is_heard().then(|| Ear::open(&stage.scene));
        let scene = stage.scene.clone();
        let mut child = Traced::spawn(move || scene.play());
        child.run_to_mark(None);
        stage.ready();
        child.run_to_mark(None);
        stage.get_set();
        child.run_to_mark(None);
        stage.child = Some(child);
        stage.before = [stage.out.got.len(), page.handed().len()];
        stage
    }

    fn open(&self, role: Role, takeover: Takeover) -> eshm::Result<Endpoint> {
        let mut options = self.scene.options(role);
        options.takeover(takeover).open()
    }

    /// Both roles, with messages unread in both directions; then the child's role is vacated in
    /// the way that the scene wants.
    fn open_bus(&mut self) {
        if self.scene.op == Op::Create {
            return;
        }
        let master = self.open(Role::Master, Takeover::Never).expect("a new bus");
        let slave = self.open(Role::Slave, Takeover::Never).expect("its other end");
        let (mut mine, mut peer) = match self.scene.role {
            Role::Master => (master, slave),
            _ => (slave, master),
        };
        for seq in 0..3 {
            mine.try_write(&message(seq, SHORT, 0)).expect("room");
            peer.try_write(&message(seq, SHORT, 0)).expect("room");
            self.out.send(seq, Fate::Sent);
            self.back.send(seq, Fate::Sent);
        }
        read_one(&mut peer, &mut self.out.got);
        match self.scene.op {
            Op::Fence => self.victim = Some(mine),
            _ => drop(mine),
        }
        if self.scene.op == Op::Adopt {
            self.let_one_die();
        }
        self.peer = Some(peer);
    }

    /// An owner of the role that dies with messages on both sides.
    fn let_one_die(&mut self) {
        // SAFETY: one thread, as always here.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Child => {
                let mut endpoint = self.open(self.scene.role, Takeover::Never).expect("vacant");
                let mut buffer = [0; 64];
                endpoint.try_read(&mut buffer).expect("a message");
                endpoint.try_write(&message(3, SHORT, 0)).expect("room");
                let _ = kill(nix::unistd::getpid(), Signal::SIGKILL);
                unreachable!("killed");
            }
            ForkResult::Parent { child } => {
                waitpid(child, None).expect("waitpid");
                self.scene.page.hand(0);
                self.out.send(3, Fate::Sent);
            }
        }
    }

    /// The child is there.
    fn ready(&mut self) {
        for seq in 3..self.scene.page.counters[0].load(std::sync::atomic::Ordering::SeqCst) {
            self.out.send(seq, Fate::Sent);
        }
        let Some(peer) = &mut self.peer else { return };
        if !self.scene.op.opens() && !matches!(self.scene.op, Op::Leave | Op::LeaveLast) {
            drain(peer, &mut self.out.got, &mut self.out.numbers, self.is_hasty);
        }
        for seq in 0..self.scene.op.fillers() as u64 {
            peer.try_write(&message(3 + seq, SHORT, 0)).expect("room");
            self.back.send(3 + seq, Fate::Sent);
        }
    }

    /// Everything is as it should be but for the last step.
    fn get_set(&mut self) {
        let known = self.out.sent.len() as u64;
        for seq in known..self.scene.page.counters[0].load(std::sync::atomic::Ordering::SeqCst) {
            self.out.send(seq, Fate::Sent);
        }
        let op = self.scene.op;
        if op == Op::ReadEpoch {
            drop(self.peer.take());
            self.peer = Some(self.open(self.scene.role.peer(), Takeover::Never).expect("vacant"));
        }
        if op != Op::ParkWoken {
            self.write_targets();
        }
        for (index, _) in op.writes().iter().enumerate() {
            self.out.send(ACT + index as u64, Fate::Open);
        }
        match op {
            Op::WriteWakes => self.put_to_sleep(|peer| {
                let mut buffer = vec![0; 1024];
                let len = peer.read_timeout(&mut buffer, Duration::from_secs(5))?;
                buffer.truncate(len);
                Ok(buffer)
            }),
            Op::ReadWakes => {
                let peer = self.peer.as_mut().expect("there");
                let mut seq = AFTER - 500;
                while peer.try_write(&message(seq, SHORT, 0)).is_ok() {
                    self.back.send(seq, Fate::Sent);
                    seq += 1;
                }
                self.back.send(seq, Fate::Sent);
                self.put_to_sleep(move |peer| {
                    peer.write_timeout(&message(seq, SHORT, 0), Duration::from_secs(5))?;
                    Ok(Vec::new())
                });
            }
            Op::MoveWrite | Op::MoveRead => {
                self.victim = self.peer.take();
                let successor = self.open(self.scene.role.peer(), Takeover::Always);
                self.peer = Some(successor.expect("fences"));
            }
            Op::LeaveLast => drop(self.peer.take()),
            _ => {}
        }
    }

    fn write_targets(&mut self) {
        let op = self.scene.op;
        let Some(peer) = &mut self.peer else { return };
        for (index, &len) in op.reads().iter().enumerate() {
            let seq = ACT + index as u64;
            peer.try_write(&message(seq, len, 0)).expect("room");
            self.back.send(seq, Fate::Sent);
        }
    }

    fn put_to_sleep(
        &mut self,
        call: impl FnOnce(&mut Endpoint) -> Result<Vec<u8>, Error> + Send + 'static,
    ) {
        let mut peer = self.peer.take().expect("there");
        self.sleeper = Some(std::thread::spawn(move || {
            let done = call(&mut peer);
            (peer, done)
        }));
        // Where it sleeps is not seen from here; a moment later it does, or is about to.
        std::thread::sleep(Duration::from_micros(300));
    }

    fn wake_up(&mut self) {
        let Some(sleeper) = self.sleeper.take() else { return };
        let (peer, done) = sleeper.join().expect("a sleeper that panicked");
        self.peer = Some(peer);
        match done {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => self.out.got.push(seq_of(&bytes).unwrap_or(TORN)),
            Err(error) => panic!("the sleeping peer: {error}"),
        }
    }

    /// What the parent does when the child sleeps in the kernel.
    fn idle(&mut self) {
        if std::mem::replace(&mut self.has_idled, true) {
            return;
        }
        match self.scene.op {
            Op::ParkWoken => self.write_targets(),
            Op::WriteWaits => read_one(self.peer.as_mut().expect("there"), &mut self.out.got),
            _ => {}
        }
    }

    /// Moves the child with `go`, and does the parent's part if it falls asleep.
    pub fn direct<T>(&mut self, go: impl FnOnce(&mut Traced, Option<&mut dyn FnMut()>) -> T) -> T {
        let mut child = self.child.take().expect("still there");
        let result = match self.scene.op {
            Op::ParkWoken | Op::WriteWaits => go(&mut child, Some(&mut || self.idle())),
            _ => go(&mut child, None),
        };
        self.child = Some(child);
        result
    }

    /// Cuts the operation short, goes on without it, and compares the books. The answer of the
    /// operation, if there was one.
    pub fn reckon(mut self, cut: Cut) -> Result<Told, String> {
        self.has_idled = true;
        if cut == Cut::Killed {
            self.child.take().expect("still there").kill();
        }
        self.listen(false);
        let must_fence = cut == Cut::Frozen || self.scene.op == Op::Fence;
        if cut == Cut::Spared {
            self.let_finish()?;
        }
        let takeover = if must_fence { Takeover::Always } else { Takeover::Never };
        self.is_hasty &= cut == Cut::Frozen && !self.scene.op.is_long();
        if self.scene.op.is_long() && self.peer.is_some() {
            // One who comes and leaves at once must not take the bus away from those who move.
            drop(self.succeed(takeover)?);
        }
        let mut successor = self.succeed(takeover)?;
        if self.is_anew && self.scene.op.races() {
            // One who was there would look into the old slot first.
            drop(self.peer.take());
            self.peer = Some(self.insist(self.scene.role.peer(), Takeover::Never)?);
        }
        self.listen(false);
        if self.is_hasty {
            self.let_finish()?;
        }
        self.listen(true);
        let from = if cut == Cut::Spared { FINAL } else { AFTER };
        self.exchange(&mut successor, from)?;
        if cut == Cut::Frozen {
            if !self.is_hasty {
                self.let_finish()?;
            }
            self.listen(true);
            if self.scene.op.is_long() {
                drop(successor);
                successor = self.succeed(Takeover::Always)?;
            }
            self.exchange(&mut successor, FINAL)?;
        }
        let told = self.scene.page.told(Answer::Act);
        self.settle(cut, &told)?;
        if self.scene.op.races() {
            self.settle_races(cut, &told, &successor)?;
        }
        if let Some(ear) = self.ear.take() {
            let next = successor.last_committed().map_or(0, |id| id.number + 1);
            ear.check(&self.out, next)?;
        }
        self.close(successor)?;
        Ok(told)
    }

    /// Kills the child, forgets all others, and removes the bus by force.
    pub fn remove(mut self) -> Result<(), String> {
        self.child.take().expect("still there").kill();
        let name = self.scene.name.clone();
        let removed = eshm::remove(&name, true);
        drop(self);
        for file in leftovers(&name).iter().filter(|file| file.contains('~')) {
            // What a killed one moved aside is listed, and removed, under a name of its own.
            let _ = eshm::remove(file.trim_start_matches("eshm_"), false);
        }
        let left_over = leftovers(&name);
        match removed {
            Ok(()) | Err(Error::NotFound { .. }) if left_over.is_empty() => Ok(()),
            other => Err(format!("removed by force: {other:?}, {left_over:?}")),
        }
    }

    /// The tap listens. It does so at once, or only when all is over, so that it must catch up.
    fn listen(&mut self, is_over: bool) {
        if let Some(ear) = self.ear.as_mut().filter(|_| is_over || !self.is_hasty) {
            ear.listen();
        }
    }

    /// Lets the child come to its end.
    fn let_finish(&mut self) -> Result<(), String> {
        let mut child = self.child.take().expect("still there");
        loop {
            match child.resume() {
                Stop::Mark | Stop::Syscall | Stop::Trap => {}
                Stop::Ended(WaitStatus::Exited(_, 0)) => return Ok(()),
                other => return Err(format!("the child ended with {other:?}")),
            }
        }
    }

    /// Somebody takes the child's place.
    fn succeed(&mut self, takeover: Takeover) -> Result<Endpoint, String> {
        let role = self.scene.role;
        if self.peer.is_none() && self.sleeper.is_none() {
            // Nobody is left, so a master comes first.
            let takeover = if role == Role::Master { takeover } else { Takeover::Never };
            let master = self.insist(Role::Master, takeover)?;
            if role == Role::Master {
                self.peer = Some(self.insist(Role::Slave, Takeover::Never)?);
                return Ok(master);
            }
            self.peer = Some(master);
        }
        if matches!(self.scene.op, Op::MoveWrite | Op::MoveRead) && takeover == Takeover::Never {
            // A place is kept for a while for one who moves; the peer finds out that he died.
            for _ in 0..4 {
                self.peer.as_ref().expect("there").beat();
                std::thread::sleep(Duration::from_millis(6));
            }
        }
        self.insist(role, takeover)
    }

    /// Opens a role; a place kept for one who cannot come any more is free after a moment.
    fn insist(&self, role: Role, takeover: Takeover) -> Result<Endpoint, String> {
        let started = Instant::now();
        loop {
            match self.open(role, takeover) {
                Err(Error::RoleTaken { .. } | Error::NotFound { .. })
                    if started.elapsed() < Duration::from_secs(3) =>
                {
                    if let Some(peer) = &self.peer {
                        peer.beat();
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                opened => return opened.map_err(|error| format!("no successor: {error}")),
            }
        }
    }

    /// Traffic in both directions with whoever took the child's place.
    fn exchange(&mut self, successor: &mut Endpoint, from: u64) -> Result<(), String> {
        let failed = |what: &'static str| move |error: Error| format!("{what}: {error}");
        let committed = successor.last_committed().map_or(0, |id| id.number + 1);
        self.committed.get_or_insert(committed);
        drain(successor, &mut self.after, &mut self.back.numbers, self.is_hasty);
        if self.sleeper.is_some() {
            successor
                .try_write(&message(from, SHORT, 0))
                .map_err(failed("the successor writes"))?;
            self.wake_up();
        } else {
            drain(
                self.peer.as_mut().expect("there"),
                &mut self.out.got,
                &mut self.out.numbers,
                self.is_hasty,
            );
            successor
                .try_write(&message(from, SHORT, 0))
                .map_err(failed("the successor writes"))?;
        }
        self.out.send(from, Fate::Sent);
        let peer = self.peer.as_mut().expect("there");
        drain(peer, &mut self.out.got, &mut self.out.numbers, self.is_hasty);
        let races = self.scene.op.races();
        // What is missing is reckoned up at the end; here they must have come to the last one.
        let delivered = if races { committed } else { self.out.delivered_below(from) };
        if delivered != committed && self.scene.op != Op::LeaveLast {
            return Err(format!("{committed} messages committed, {delivered} delivered"));
        }
        let read = peer.last_id().map_or(0, |id| id.number + 1);
        if read != delivered + 1 && self.scene.op != Op::LeaveLast {
            return Err(format!("message {delivered} is numbered {}", read - 1));
        }
        successor
            .try_write(&message(from + 1, SHORT, 0))
            .map_err(failed("the successor writes"))?;
        self.out.send(from + 1, Fate::Sent);
        drain(peer, &mut self.out.got, &mut self.out.numbers, self.is_hasty);
        for seq in from..from + 2 {
            let bytes = message(seq, SHORT, 0);
            // Full may have been said of the old segment; the next try is made in the new one.
            let mut written = peer.try_write(&bytes);
            if written.is_err() && !races {
                written = peer.try_write(&bytes);
            }
            written.map_err(failed("the peer writes"))?;
            self.back.send(seq, Fate::Sent);
        }
        drain(successor, &mut self.after, &mut self.back.numbers, self.is_hasty);
        let peer = self.peer.as_ref().expect("there");
        let (read, written) = (successor.last_id(), peer.last_committed());
        if read.map(|id| id.number) != written.map(|id| id.number) && self.scene.op.races() {
            return Err(format!("{read:?} was read last, of {written:?}"));
        }
        Ok(())
    }

    /// Puts what the child was told beside what was delivered.
    fn settle(&mut self, cut: Cut, told: &Told) -> Result<(), String> {
        let op = self.scene.op;
        let page = self.scene.page;
        let acts: Vec<u64> = (ACT..).take(op.writes().len()).collect();
        let count = match told {
            Told::Ok(count) => *count as usize,
            _ => 0,
        };
        if op.is_heard() && *told == Told::Nothing {
            // Numbers tell which ones were committed.
            let before = self.out.sent.iter().filter(|(seq, _)| *seq < ACT).count() as u64;
            let count = self.committed.expect("found").saturating_sub(before) as usize;
            self.out.settle(&acts[..count.min(acts.len())], Fate::Sent);
            self.out.settle(&acts[count.min(acts.len())..], Fate::Refused);
        }
        if *told != Told::Nothing {
            self.out.settle(&acts[..count.min(acts.len())], Fate::Sent);
            self.out.settle(&acts[count.min(acts.len())..], Fate::Refused);
        }
        self.take_in_reads(told, count);
        if page.told(Answer::Write) == Told::Ok(1) {
            // Alone on the bus it takes its message with it when it leaves.
            let is_alone = op == Op::Create && cut == Cut::Spared;
            self.out.send(PROBE, if is_alone { Fate::Open } else { Fate::Sent });
        }
        if let Told::Other(why) = told
            && cut != Cut::Spared
            && !(op.opens() && op != Op::Fence && why.contains("is taken by"))
        {
            return Err(format!("the child was told: {why}"));
        }
        if *told == Told::Wait && op.races() {
            return Err("there was nothing to wait for".into());
        }
        if op == Op::LeaveLast {
            return self.settle_last();
        }
        let after = [page.told(Answer::Write), page.told(Answer::Read)];
        let has_endpoint = cut == Cut::Frozen && !op.is_long();
        if has_endpoint && after != [Told::Fenced, Told::Fenced] {
            return Err(format!("the replaced child was told {told:?} and then {after:?}"));
        }
        self.out.check("out", op.races())?;
        self.back.check("back", op.races())
    }

    /// What was overwritten is counted, and everything else is there.
    fn settle_races(&self, cut: Cut, told: &Told, last: &Endpoint) -> Result<(), String> {
        let op = self.scene.op;
        let stats = last.stats();
        let (out, back) = match self.scene.role {
            Role::Master => (stats.master_to_slave, stats.slave_to_master),
            _ => (stats.slave_to_master, stats.master_to_slave),
        };
        let peer = self.peer.as_ref().expect("there");
        if peer.lost() != out.lost && !self.is_anew {
            return Err(format!("the peer lost {}, and all {}", peer.lost(), out.lost));
        }
        let taken = match (op, told) {
            // Those that were lost are passed over too.
            (Op::RaceLatest | Op::RaceLatestLapped, Told::Ok(count)) => {
                [count.saturating_sub(back.lost); 2]
            }
            (_, Told::Nothing) if cut == Cut::Killed => [0, op.takes()],
            _ => [0; 2],
        };
        let is_untold = *told == Told::Nothing || *told == Told::Fenced;
        let may_count_twice = is_untold && op.takes() > 0;
        let ours = Reckoning {
            op,
            lost: out.lost,
            taken: [0; 2],
            may_count_twice: false,
            stream: &self.out,
        };
        ours.check("out")?;
        let theirs = Reckoning { op, lost: back.lost, taken, may_count_twice, stream: &self.back };
        theirs.check("back")
    }

    /// Who read what: first the child, then those after it.
    fn take_in_reads(&mut self, told: &Told, count: usize) {
        let op = self.scene.op;
        let page = self.scene.page;
        let (handed, shown) = (page.handed(), page.shown());
        self.back.got = handed;
        if op.is_at_least_once() {
            let is_known = |seq: &&u64| !self.after.contains(seq);
            match told {
                // Consumed: shown again it would be there twice. (Where messages are overwritten, it was
                // consumed when it was shown.)
                Told::Ok(_) => self.back.got.extend(&shown[..count.min(shown.len())]),
                // Whether it was consumed is not known; if nobody else saw it, it was.
                Told::Nothing => self.back.got.extend(shown.iter().filter(is_known)),
                _ => {}
            }
        }
        if *told == Told::Nothing && (op.races() || !op.is_at_least_once()) {
            self.back.may_miss = (ACT..).take(op.reads().len()).collect();
        }
        self.back.got.extend(&self.after);
    }

    /// The last one out takes all with it, or nothing.
    fn settle_last(&mut self) -> Result<(), String> {
        for (stream, before) in [&mut self.out, &mut self.back].into_iter().zip(self.before) {
            let known = stream.got[..before].to_vec();
            let comes_back = stream.got[before..].iter().any(|&seq| seq < ACT);
            if !comes_back {
                stream.sent.retain(|(seq, _)| *seq >= ACT || known.contains(seq));
            }
            stream.check("left", false)?;
        }
        Ok(())
    }

    /// Everybody leaves, and nothing stays behind.
    fn close(&mut self, successor: Endpoint) -> Result<(), String> {
        if let Some(mut victim) = self.victim.take() {
            let wrote = victim.try_write(&message(FINAL - 1, SHORT, 0));
            let read = victim.try_read(&mut [0; 1024]);
            let is_fenced = |error: Option<Error>| matches!(error, Some(Error::Fenced { .. }));
            if !is_fenced(wrote.clone().err()) || !is_fenced(read.clone().err()) {
                return Err(format!("who was fenced was told {wrote:?} and {read:?}"));
            }
        }
        let left = successor.leave().err();
        let peer_left = self.peer.take().expect("there").leave().err();
        let left_over = leftovers(&self.scene.name);
        if left.is_some() || peer_left.is_some() || !left_over.is_empty() {
            return Err(format!("left over: {left_over:?} {left:?} {peer_left:?}"));
        }
        Ok(())
    }
}

fn read_one(endpoint: &mut Endpoint, got: &mut Vec<u64>) {
    let mut buffer = [0; 1024];
    let len = endpoint.try_read(&mut buffer).expect("a message");
    got.push(seq_of(&buffer[..len]).unwrap_or(TORN));
}
