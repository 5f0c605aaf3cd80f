//! Turns: one thread at a time, at almost no cost for the thread that usually comes.
//!
//! A lock costs two atomic read-modify-write operations per call, which on the machines at hand is
//! more than the whole write of a small message, and they wait for the stores of that message to
//! reach the other core. So a turn that one thread took a few times in a row becomes *its own*:
//!
//! ```text
//!   owner enters   inside = id; (light barrier); owner still me?    owner leaves   inside = none;
//!                                                                   (light); owner still me? else wake
//!   with a ticket  the same, where it asks: ticket still there?     the same
//!   other enters   take the word; owner = nobody; (heavy barrier); withdraw the ticket; (heavy);
//!                  wait until inside != id
//! ```
//!
//! Light is a compiler fence; heavy is `membarrier`, which makes every running thread of the
//! process pass a full barrier. So either the owner sees that it is none any more, or the other
//! sees that the owner is inside. From then on the word is an ordinary lock (who has it, and whether
//! somebody sleeps), until one thread again comes often enough alone.
//!
//! The word names its holder in the same instruction that takes it, and `inside` is the word of the
//! owner: so a signal handler finds out at every instruction whether it interrupted the turn that it
//! asks for. If so it is turned away; it must not wait, not even for another thread, which may be
//! waiting for the interrupted one.
//!
//! The heavy barrier may be refused when it is needed (a filter for system calls that came later).
//! Then the other waits for so long that the owner's word has arrived by itself
//! ([`thread::barrier_everywhere`]), and from then on nobody becomes an owner.
//!
//! A ticket (see [`thread::step_in`]) spares the owner the way to the turn, which costs as much as the
//! message: it is found by the handle alone, and leads to what the turn protects. The owner issues it
//! to itself while it is inside, and looks afterwards whether it is the owner; so from the first heavy
//! barrier on it issues none that it keeps. The second one is to the ticket what the first is to the
//! ownership.
//!
//! Who may touch what the turn protects: the owner while its `inside` is the turn's id, if it saw
//! itself as owner, or its ticket, after it said so; or who holds the word, after owner was seen or
//! made nobody.
//!
//! Must never: wait without a bound for a process that forked away (the holder may not exist here),
//! or let one thread in twice (a signal handler inside a call).

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, compiler_fence};
use std::time::{Duration, Instant};

use crate::thread::{self, Kind, OUTSIDE, Record, Step, low_half, wait, wake_all};

/// How often a thread comes alone before the turn is made its own, the first time.
const FIRST_PRICE: u32 = 16;
/// The most that this grows to, by doubling each time the turn is taken back.
const LAST_PRICE: u32 = 1 << 16;
/// In the word: somebody sleeps until it changes.
const SLEEPERS: usize = 1;
/// How long a sleep may last before looking again whether this is still the same process.
const NAP: Duration = Duration::from_millis(20);

/// How long a thread waits for its turn.
#[derive(Debug, Clone, Copy)]
pub enum Patience {
    /// While another thread works, but not while it waits for something itself.
    Short,
    /// As long as it takes, but no longer than this.
    Until(Instant),
    /// As long as it takes.
    Endless,
}

/// Why a thread did not get its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Another thread had it all the time.
    Busy,
    /// The calling thread has it already.
    Nested,
    /// This process is a child, and the turn was taken when it was forked.
    Forked,
}

/// One thing that threads take turns at. What its owner looks at comes first.
#[repr(C)]
pub struct Turn {
    owner: AtomicPtr<Record>,
    /// The handle that it is the turn of.
    handle: AtomicUsize,
    kind: Kind,
    /// The thread that has the turn without being its owner, as [`thread::current`] tells it, and
    /// [`SLEEPERS`]; 0 if there is none.
    word: AtomicUsize,
    /// The holder waits for something that may take long.
    patient: AtomicBool,
    /// How many threads wait for the turn.
    wanted: AtomicU32,
    process: AtomicU32,
    last: AtomicUsize,
    streak: AtomicU32,
    price: AtomicU32,
}

/// The turn, had; given back when dropped.
pub struct Held<'a> {
    turn: &'a Turn,
    /// The record by which the owner came in; none for the holder of the word.
    record: Option<&'static Record>,
}

impl Turn {
    /// A turn of a kind.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Turn {
            kind,
            owner: AtomicPtr::new(ptr::null_mut()),
            handle: AtomicUsize::new(0),
            word: AtomicUsize::new(0),
            patient: AtomicBool::new(false),
            wanted: AtomicU32::new(0),
            process: AtomicU32::new(0),
            last: AtomicUsize::new(0),
            streak: AtomicU32::new(0),
            price: AtomicU32::new(FIRST_PRICE),
        }
    }

    /// Makes the turn that of a handle of this process. Only while nobody uses it.
    pub fn renew(&self, handle: usize) {
        self.handle.store(handle, Ordering::Relaxed);
        if self.process.swap(std::process::id(), Ordering::Relaxed) != std::process::id() {
            // A place inherited through a fork: nobody of this process is in it.
            self.word.store(0, Ordering::Relaxed);
            self.wanted.store(0, Ordering::Relaxed);
            self.patient.store(false, Ordering::Relaxed);
            self.owner.store(ptr::null_mut(), Ordering::Relaxed);
        }
        self.price.store(FIRST_PRICE, Ordering::Relaxed);
    }

    /// Whether this process is a child of the one that renewed the turn.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        self.process.load(Ordering::Relaxed) != std::process::id()
    }

    /// Takes the turn.
    #[inline(always)]
    pub fn enter(&self, patience: impl FnOnce() -> Patience) -> Result<Held<'_>, Denied> {
        let owner = self.owner.load(Ordering::Relaxed);
        // SAFETY: records are never freed, and what is read here never changes. The record was
        // made by this thread, or `thread` differs; so no ordering is needed.
        if let Some(record) = unsafe { NonNull::new(owner).map(|record| record.as_ref()) }
            && record.thread == thread::current()
            && record.inside.load(Ordering::Relaxed) == OUTSIDE
        {
            record.inside.store(self.handle() as u32, Ordering::Relaxed);
            if self.is_owned_by(record) {
                return Ok(Held { turn: self, record: Some(record) });
            }
            self.leave_owned(record);
        }
        self.enter_locked(patience())
    }

    /// Takes the turn, for who stepped in with a ticket.
    #[inline(always)]
    pub fn enter_from(
        &self,
        step: Step,
        patience: impl FnOnce() -> Patience,
    ) -> Result<Held<'_>, Denied> {
        let record = step.stay();
        if self.is_owned_by(record) {
            return Ok(Held { turn: self, record: Some(record) });
        }
        self.leave_owned(record);
        self.enter_locked(patience())
    }

    #[inline(always)]
    fn is_owned_by(&self, record: &Record) -> bool {
        // Light side, pairs with `revoke`: said that I am inside, or out, then look.
        compiler_fence(Ordering::SeqCst);
        ptr::eq(self.owner.load(Ordering::Relaxed), record)
    }

    #[inline(always)]
    fn leave_owned(&self, record: &'static Record) {
        // Release: what was done inside is seen by who waits for this (`outlast`).
        record.inside.store(OUTSIDE, Ordering::Release);
        if !self.is_owned_by(record) {
            wake_all(&record.inside);
        }
    }

    #[cold]
    #[inline(never)]
    fn enter_locked(&self, patience: Patience) -> Result<Held<'_>, Denied> {
        self.lock(patience)?;
        let owner = self.owner.load(Ordering::Relaxed);
        // SAFETY: records are never freed; acquire by `lock`, whose last holder wrote `owner`.
        if let Some(record) = unsafe { owner.as_ref() }
            && let Err(denied) = self.revoke(record, patience)
        {
            self.unlock();
            return Err(denied);
        }
        Ok(Held { turn: self, record: None })
    }

    /// Takes the turn back from its owner. Only with the word held.
    fn revoke(&self, record: &'static Record, patience: Patience) -> Result<(), Denied> {
        if record.thread == thread::current() && self.is_inside(record) {
            return Err(Denied::Nested);
        }
        self.owner.store(ptr::null_mut(), Ordering::Relaxed);
        self.wanted.fetch_add(1, Ordering::Relaxed);
        // Heavy side: said that nobody is owner, then look who is inside.
        thread::barrier_everywhere();
        // From this barrier on the owner issues no ticket that it keeps.
        record.withdraw(self.handle());
        thread::barrier_everywhere();
        let outcome = self.outlast(record, patience);
        self.wanted.fetch_sub(1, Ordering::Relaxed);
        match outcome {
            Ok(()) => self.price.store(self.dearer(), Ordering::Relaxed),
            // The owner remains what it was: it may still be inside.
            Err(_) => self.owner.store(ptr::from_ref(record).cast_mut(), Ordering::Relaxed),
        }
        outcome
    }

    /// Whether the thread of this record says that it is inside. Acquire: pairs with `leave_owned`.
    fn is_inside(&self, record: &Record) -> bool {
        record.inside.load(Ordering::Acquire) == self.handle() as u32
    }

    fn dearer(&self) -> u32 {
        (self.price.load(Ordering::Relaxed) * 2).min(LAST_PRICE)
    }

    /// Waits until the former owner is out.
    fn outlast(&self, record: &'static Record, patience: Patience) -> Result<(), Denied> {
        let id = self.handle() as u32;
        let mut tries = 0;
        while self.is_inside(record) {
            self.nap(&record.inside, id, patience, &mut tries)?;
        }
        Ok(())
    }

    fn lock(&self, patience: Patience) -> Result<(), Denied> {
        let me = thread::current();
        // Acquire: pairs with the release in `unlock`.
        let free = self.word.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed);
        let Err(seen) = free else { return Ok(()) };
        // Either is of this thread's own saying: true, or not said, for as long as this call lasts.
        // Who is inside may be what the holder waits for.
        let is_owner_inside =
            || thread::known(self.kind, self.handle()).is_some_and(|record| self.is_inside(record));
        if seen & !SLEEPERS == me || is_owner_inside() {
            return Err(Denied::Nested);
        }
        self.wanted.fetch_add(1, Ordering::Relaxed);
        let outcome = self.lock_contended(me, patience);
        self.wanted.fetch_sub(1, Ordering::Relaxed);
        outcome
    }

    fn lock_contended(&self, me: usize, patience: Patience) -> Result<(), Denied> {
        let mut tries = 0;
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            // Who waited leaves the mark, since others may have come to sleep meanwhile.
            let wanted = if seen == 0 { me | SLEEPERS } else { seen | SLEEPERS };
            // Acquire: pairs with the release in `unlock`.
            let order = (Ordering::Acquire, Ordering::Relaxed);
            if seen != wanted
                && self.word.compare_exchange_weak(seen, wanted, order.0, order.1).is_err()
            {
                continue;
            }
            if seen == 0 {
                return Ok(());
            }
            self.nap(low_half(&self.word), wanted as u32, patience, &mut tries)?;
        }
    }

    fn handle(&self) -> usize {
        self.handle.load(Ordering::Relaxed)
    }

    /// Spins a little, then sleeps until `word` is not `value` any more, or for a while.
    fn nap(
        &self,
        word: &AtomicU32,
        value: u32,
        patience: Patience,
        tries: &mut u32,
    ) -> Result<(), Denied> {
        *tries += 1;
        if *tries < 64 {
            std::hint::spin_loop();
            return Ok(());
        }
        if self.is_inherited() {
            return Err(Denied::Forked);
        }
        let rest = match patience {
            Patience::Short if self.patient.load(Ordering::Relaxed) => return Err(Denied::Busy),
            Patience::Short => Duration::from_millis(1),
            Patience::Until(end) => end.saturating_duration_since(Instant::now()),
            Patience::Endless => NAP,
        };
        if rest.is_zero() {
            return Err(Denied::Busy);
        }
        wait(word, value, rest.min(NAP));
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn unlock(&self) {
        // Release: pairs with the acquires in `lock`.
        if self.word.swap(0, Ordering::Release) & SLEEPERS != 0 {
            wake_all(low_half(&self.word));
        }
    }

    /// Makes the turn the caller's own if it came often enough alone. Only with the word held, and
    /// the owner outlasted.
    #[cold]
    fn reward(&self) {
        let me = thread::current();
        if self.last.swap(me, Ordering::Relaxed) != me {
            self.streak.store(0, Ordering::Relaxed);
            return;
        }
        let streak = self.streak.load(Ordering::Relaxed) + 1;
        self.streak.store(streak, Ordering::Relaxed);
        if streak >= self.price.load(Ordering::Relaxed) && thread::has_barrier() {
            self.streak.store(0, Ordering::Relaxed);
            let record = thread::record(self.kind, self.handle());
            let owner = record.map_or(ptr::null_mut(), |record| ptr::from_ref(record).cast_mut());
            self.owner.store(owner, Ordering::Relaxed);
        }
    }
}

impl Held<'_> {
    /// Gives the owner a ticket to this place, or takes it back. Said anew by whoever had the turn the
    /// long way, since it may have changed what is there.
    #[inline(always)]
    pub fn allow(&self, place: impl FnOnce() -> Option<NonNull<()>>) {
        let Some(record) = self.record else { return };
        let handle = self.turn.handle();
        if let Some(place) = place() {
            record.issue(handle, place.as_ptr());
            if self.turn.is_owned_by(record) {
                return;
            }
        }
        // Before it is outside, so that nothing steps in with it.
        record.withdraw(handle);
    }

    /// Whether another thread waits for the turn.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.turn.wanted.load(Ordering::Relaxed) != 0
    }

    /// Whether it is this turn that is held.
    #[must_use]
    pub fn is_of(&self, turn: &Turn) -> bool {
        ptr::eq(self.turn, turn)
    }

    /// Runs something that may wait for long.
    pub fn patiently<T>(&self, wait: impl FnOnce() -> T) -> T {
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Relaxed);
            }
        }
        // A hint for others that have no time; nothing else depends on it.
        self.turn.patient.store(true, Ordering::Relaxed);
        let _over = Over(&self.turn.patient);
        wait()
    }
}

impl Drop for Held<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        match self.record {
            Some(record) => self.turn.leave_owned(record),
            None => {
                self.turn.reward();
                self.turn.unlock();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::SLOT_SHIFT;
    use std::cell::UnsafeCell;
    use std::sync::mpsc;

    struct Counter(Turn, UnsafeCell<(u64, u64)>);
    // SAFETY: the pair is touched only with the turn held.
    unsafe impl Sync for Counter {}

    impl Counter {
        fn new() -> &'static Counter {
            static NUMBERS: AtomicUsize = AtomicUsize::new(1);
            let counter =
                Box::leak(Box::new(Counter(Turn::new(Kind::Writing), UnsafeCell::new((0, 0)))));
            counter.0.renew(NUMBERS.fetch_add(1, Ordering::Relaxed) << SLOT_SHIFT | 16);
            counter
        }

        fn handle(&self) -> usize {
            self.0.handle.load(Ordering::Relaxed)
        }

        fn step(&self) {
            let held = self.0.enter(|| Patience::Endless).expect("the turn comes");
            self.count();
            held.allow(|| NonNull::new(self.1.get().cast()));
        }

        /// With a ticket, if there is one.
        fn step_quickly(&self) -> bool {
            let Some(record) = thread::step_in(Kind::Writing, self.handle()) else { return false };
            if !record.has_ticket(self.handle()) {
                drop(Step::new(record));
                return false;
            }
            assert_eq!(record.place(), self.1.get().cast());
            self.count();
            record.step_out(self.handle(), true)
        }

        fn count(&self) {
            // SAFETY: the turn is held.
            let pair = unsafe { &mut *self.1.get() };
            assert_eq!(pair.0, pair.1, "two threads inside");
            pair.0 += 1;
            std::hint::black_box(&mut *pair);
            pair.1 += 1;
        }

        fn is_owned(&self) -> bool {
            !self.0.owner.load(Ordering::Relaxed).is_null()
        }
    }

    fn record_of(counter: &Counter) -> &'static Record {
        thread::record(Kind::Writing, counter.handle()).expect("there is memory")
    }

    #[test]
    fn the_usual_thread_becomes_the_owner() {
        let counter = Counter::new();
        assert!(!counter.step_quickly(), "it does not come so easily");
        (0..FIRST_PRICE + 2).for_each(|_| counter.step());
        assert_eq!(counter.is_owned(), thread::has_barrier());
        assert_eq!(counter.step_quickly(), thread::has_barrier());
        let other = std::thread::spawn(|| {
            assert!(!counter.step_quickly(), "the ticket is of another thread");
            counter.step();
        });
        other.join().expect("the thread ends");
        assert!(!counter.is_owned(), "another thread takes it back");
        assert!(!counter.step_quickly(), "and the ticket");
    }

    #[test]
    fn a_ticket_is_of_one_handle_and_taken_back() {
        let (counter, other) = (Counter::new(), Counter::new());
        for counter in [counter, other] {
            (0..FIRST_PRICE + 2).for_each(|_| counter.step());
        }
        if !thread::has_barrier() {
            return;
        }
        assert!(counter.step_quickly() && other.step_quickly());
        for handle in [0, 1, 16, counter.handle() ^ 1, counter.handle() ^ (1 << 40), usize::MAX] {
            assert!(thread::step_in(Kind::Writing, handle).is_none(), "{handle:#x}");
        }
        assert!(thread::step_in(Kind::Reading, counter.handle()).is_none());
        // Inside, as a signal handler would find it.
        let inside = thread::step_in(Kind::Writing, counter.handle()).expect("there is a ticket");
        assert!(!counter.step_quickly());
        assert_eq!(counter.0.enter(|| Patience::Endless).map(drop), Err(Denied::Nested));
        drop(Step::new(inside));
        counter.step();
        assert!(counter.step_quickly());
        counter.0.enter(|| Patience::Endless).expect("its own").allow(|| None);
        assert!(!counter.step_quickly());
        assert!(other.step_quickly());
    }

    /// One thread comes all the time and so becomes the owner again and again; the other comes
    /// whenever it has, and takes the turn back at whatever point the owner is.
    fn never_meet(step: impl Fn(&Counter) + Sync) {
        let counter = Counter::new();
        let visits: u64 = if thread::has_barrier() { 700 } else { 0 };
        let over = AtomicBool::new(false);
        let steps = std::thread::scope(|scope| {
            let owner = scope.spawn(|| {
                let mut steps = 0;
                let mut elsewhere = [0_u64; 64];
                while !over.load(Ordering::Relaxed) {
                    // Keeps the core's stores on their way, so that a missing barrier shows.
                    elsewhere.iter_mut().for_each(|word| *word = std::hint::black_box(steps));
                    step(counter);
                    steps += 1;
                }
                steps
            });
            let end = Instant::now() + Duration::from_secs(60);
            for _ in 0..visits {
                while !counter.is_owned() {
                    assert!(!owner.is_finished(), "two threads inside");
                    if Instant::now() > end {
                        over.store(true, Ordering::Relaxed);
                        panic!("nobody owns the turn, and somebody uses it");
                    }
                    std::hint::spin_loop();
                }
                counter.step();
                counter.0.price.store(FIRST_PRICE, Ordering::Relaxed);
            }
            over.store(true, Ordering::Relaxed);
            owner.join().expect("no two inside")
        });
        // SAFETY: all threads ended.
        assert_eq!(unsafe { (*counter.1.get()).0 }, visits + steps);
    }

    #[test]
    fn threads_never_meet_while_ownership_comes_and_goes() {
        never_meet(Counter::step);
        never_meet(|counter| {
            if !counter.step_quickly() {
                counter.step();
            }
        });
        // Stepped in with a ticket, and then in need of more.
        never_meet(|counter| match thread::step_in(Kind::Writing, counter.handle()) {
            Some(record) => {
                let step = Step::new(record);
                let held = counter.0.enter_from(step, || Patience::Endless).expect("it comes");
                counter.count();
                held.allow(|| NonNull::new(counter.1.get().cast()));
            }
            None => counter.step(),
        });
    }

    /// A thread that is turned away again and again earns nothing by that.
    #[test]
    fn who_is_turned_away_does_not_become_the_owner() {
        let counter = Counter::new();
        (0..FIRST_PRICE + 2).for_each(|_| counter.step());
        let held = counter.0.enter(|| Patience::Endless).expect("its own");
        held.patiently(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for _ in 0..4 * FIRST_PRICE {
                        let entered = counter.0.enter(|| Patience::Short).map(drop);
                        assert_eq!(entered, Err(Denied::Busy));
                    }
                });
            });
        });
    }

    /// The owner as it finds itself when another thread took the turn back at the worst moment.
    #[test]
    fn who_steps_in_too_late_waits_like_any_other() {
        let counter = Counter::new();
        (0..FIRST_PRICE + 2).for_each(|_| counter.step());
        let Some(record) = thread::step_in(Kind::Writing, counter.handle()) else {
            return assert!(!thread::has_barrier());
        };
        drop(Step::new(record));
        let (taken, done) = (mpsc::channel(), mpsc::channel::<()>());
        std::thread::scope(|scope| {
            let (done, is_done) = done;
            scope.spawn(move || {
                let held = counter.0.enter(|| Patience::Endless).expect("it comes");
                taken.0.send(()).expect("somebody waits for it");
                let _ = is_done.recv();
                drop(held);
            });
            taken.1.recv().expect("it is taken");
            // Its look at the ticket was before, what it says about itself comes now.
            record.inside.store(counter.handle() as u32, Ordering::Relaxed);
            assert!(!record.has_ticket(counter.handle()));
            let soon = || Patience::Until(Instant::now() + Duration::from_millis(5));
            let entered = counter.0.enter_from(Step::new(record), soon).map(drop);
            assert_eq!(entered, Err(Denied::Busy));
            drop(done);
        });
        counter.step();
    }

    /// What is left to do after a quick try is done before anybody else comes in.
    #[test]
    fn nobody_comes_between_a_try_and_what_it_was_rung_for() {
        let counter = Counter::new();
        (0..FIRST_PRICE + 2).for_each(|_| counter.step());
        let Some(record) = thread::step_in(Kind::Writing, counter.handle()) else {
            return assert!(!thread::has_barrier());
        };
        assert!(record.has_ticket(counter.handle()));
        let has_come = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _held = counter.0.enter(|| Patience::Endless).expect("it comes");
                has_come.store(true, Ordering::Relaxed);
            });
            while counter.is_owned() {
                std::hint::spin_loop();
            }
            // SAFETY: the ticket leads to the pair.
            unsafe {
                crate::seat::attend(record, counter.handle(), |pair: &mut (u64, u64)| {
                    std::thread::sleep(Duration::from_millis(5));
                    assert!(!has_come.load(Ordering::Relaxed));
                    assert_eq!(pair.0, pair.1);
                });
            }
        });
        assert!(has_come.load(Ordering::Relaxed));
        assert!(!counter.step_quickly());
        counter.step();
    }

    /// A ticket that is issued when the turn is being taken back does not stay.
    #[test]
    fn no_ticket_outlives_the_ownership() {
        let counter = Counter::new();
        (0..FIRST_PRICE + 2).for_each(|_| counter.step());
        if !counter.is_owned() {
            return assert!(!thread::has_barrier());
        }
        std::thread::scope(|scope| {
            let held = counter.0.enter(|| Patience::Endless).expect("its own");
            held.allow(|| None);
            scope.spawn(|| counter.step());
            while counter.0.wanted.load(Ordering::Relaxed) == 0 {
                std::hint::spin_loop();
            }
            // Most probably the other one has gone on to wait by then. If not, it must be right too.
            std::thread::sleep(Duration::from_millis(5));
            held.allow(|| NonNull::new(counter.1.get().cast()));
            assert!(!record_of(counter).has_ticket(counter.handle()));
            drop(held);
        });
    }

    #[test]
    fn a_second_entry_of_one_thread_is_refused() {
        let counter = Counter::new();
        for owned in [false, true] {
            if owned {
                (0..FIRST_PRICE + 2).for_each(|_| counter.step());
            }
            let held = counter.0.enter(|| Patience::Endless).expect("free");
            let again = counter.0.enter(|| Patience::Endless).map(drop);
            assert_eq!(again, Err(Denied::Nested));
            drop(held);
            counter.step();
        }
    }

    #[test]
    fn who_has_no_time_is_turned_away_by_a_patient_holder_only() {
        let counter = Counter::new();
        let (begun, go) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let held = counter.0.enter(|| Patience::Endless).expect("free");
                held.patiently(|| {
                    begun.wait();
                    go.wait();
                });
            });
            begun.wait();
            assert_eq!(counter.0.enter(|| Patience::Short).map(drop), Err(Denied::Busy));
            let soon = || Patience::Until(Instant::now() + Duration::from_millis(5));
            assert_eq!(counter.0.enter(soon).map(drop), Err(Denied::Busy));
            go.wait();
            assert_eq!(counter.0.enter(|| Patience::Endless).map(drop), Ok(()));
        });
    }
}
