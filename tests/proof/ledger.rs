//! The books: what was sent with which answer, what was read, and whether the two agree.

use std::fmt::Write as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use eshm::Error;

/// Bytes before the filling of a message.
pub const HEAD_LEN: usize = 24;

/// A message whose every byte follows from its number, its length and its kind. With `ghost` its
/// filling reads as the commit words of the frames from that one on.
pub fn message(seq: u64, len: usize, ghost: u64) -> Vec<u8> {
    assert!(len >= HEAD_LEN);
    let mut bytes = Vec::with_capacity(len + 8);
    bytes.extend(seq.to_le_bytes());
    bytes.extend(ghost.to_le_bytes());
    bytes.extend(((len as u64) << 32 ^ mix(seq)).to_le_bytes());
    let mut word = 3u64;
    while bytes.len() < len {
        let filling = if ghost > 0 { ghost + word / 8 } else { mix(seq << 16 ^ word) };
        bytes.extend(filling.to_le_bytes());
        word += 1;
    }
    bytes.truncate(len);
    bytes
}

/// The number of a message, if every byte of it is right.
pub fn seq_of(bytes: &[u8]) -> Option<u64> {
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let (seq, ghost) = (word(0)?, word(8)?);
    (message(seq, bytes.len().max(HEAD_LEN), ghost) == bytes).then_some(seq)
}

/// A good spread of bits (splitmix64).
pub fn mix(value: u64) -> u64 {
    let mut value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What is known of a message that somebody tried to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its writer was told that it is in the ring: it comes, once.
    Sent,
    /// Its writer was told that it is not, or never committed it: it must not come.
    Refused,
    /// Its writer was killed before it was told: it comes once or not at all.
    Open,
}

/// One direction: numbers only grow.
#[derive(Debug, Default)]
pub struct Stream {
    pub sent: Vec<(u64, Fate)>,
    /// Numbers as they were handed to an application, in their order.
    pub got: Vec<u64>,
    /// Numbers that a killed reader may have taken with it.
    pub may_miss: Vec<u64>,
    /// Those that this process read: the number in the message, and that of the bus.
    pub numbers: Vec<(u64, u64)>,
}

impl Stream {
    pub fn send(&mut self, seq: u64, fate: Fate) {
        self.sent.push((seq, fate));
    }

    /// Notes what became of messages sent before.
    pub fn settle(&mut self, seqs: &[u64], fate: Fate) {
        for (seq, known) in &mut self.sent {
            if seqs.contains(seq) {
                *known = fate;
            }
        }
    }

    /// How many messages below `bound` were delivered.
    pub fn delivered_below(&self, bound: u64) -> u64 {
        self.got.iter().filter(|&&seq| seq < bound).count() as u64
    }

    /// Compares both sides. Where messages are overwritten, what is missing is counted elsewhere.
    pub fn check(&self, what: &str, is_overwritten: bool) -> Result<(), String> {
        let mut faults = String::new();
        let mut note = |text: std::fmt::Arguments<'_>| {
            let _ = write!(faults, "{what}: {text}; ");
        };
        for pair in self.got.windows(2) {
            match pair[1].cmp(&pair[0]) {
                std::cmp::Ordering::Less => note(format_args!("{} after {}", pair[1], pair[0])),
                std::cmp::Ordering::Equal => note(format_args!("{} twice", pair[0])),
                std::cmp::Ordering::Greater => {}
            }
        }
        let mut gap = None;
        for &(seq, fate) in &self.sent {
            let has_come = self.got.contains(&seq);
            match fate {
                Fate::Sent if !has_come && !is_overwritten && !self.may_miss.contains(&seq) => {
                    note(format_args!("{seq} is lost"));
                }
                Fate::Refused if has_come => note(format_args!("{seq} came and was refused")),
                Fate::Open if !has_come => gap = Some(seq),
                Fate::Open if gap.is_some() => note(format_args!("{seq} came, {gap:?} did not")),
                _ => {}
            }
        }
        for seq in &self.got {
            if !self.sent.iter().any(|(sent, _)| sent == seq) {
                note(format_args!("{seq} is foreign"));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(format!("{faults}{self:?}")) }
    }
}

/// How a call in the child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Nothing yet.
    Nothing,
    Ok(u64),
    Fenced,
    /// Full, Empty or Timeout.
    Wait,
    Other(String),
}

const TOLD_FENCED: u64 = 1 << 40;
const TOLD_WAIT: u64 = 2 << 40;
const TOLD_OTHER: u64 = 3 << 40;
/// Messages that a page has room for.
const NOTES: usize = 96;

/// What a child has to say: a page that its parent sees too, and that survives it.
#[repr(C)]
pub struct Page {
    answers: [AtomicU64; 4],
    handed_len: AtomicU64,
    handed: [AtomicU64; NOTES],
    shown_len: AtomicU64,
    shown: [AtomicU64; NOTES],
    /// For streams: how far it has come.
    pub counters: [AtomicU64; 8],
    text_len: AtomicU64,
    text: [AtomicU8; 512],
}

/// A place for an answer.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// Of the operation itself.
    Act,
    /// Of a write after it.
    Write,
    /// Of a read after it.
    Read,
    /// Of leaving.
    Leave,
}

impl Page {
    /// A page shared with all children forked from now on.
    pub fn new() -> &'static Page {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
        let len = std::num::NonZeroUsize::new(size_of::<Page>()).expect("not empty");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping touches nothing that exists.
        let page =
            unsafe { mmap_anonymous(None, len, access, MapFlags::MAP_SHARED) }.expect("mmap");
        let page: NonNull<Page> = page.cast();
        // SAFETY: zeroed, large enough, aligned to a page, never unmapped; all of it is atomics.
        unsafe { page.as_ref() }
    }

    pub fn clear(&self) {
        for word in self.answers.iter().chain(&self.counters) {
            word.store(0, Ordering::SeqCst);
        }
        for len in [&self.handed_len, &self.shown_len, &self.text_len] {
            len.store(0, Ordering::SeqCst);
        }
    }

    /// Notes the answer to a call.
    pub fn tell(&self, place: Answer, answer: &eshm::Result<u64>) {
        let word = match answer {
            Ok(count) => 1 + count,
            Err(Error::Fenced { .. }) => TOLD_FENCED,
            Err(error) if error.is_wait() => TOLD_WAIT,
            Err(error) => {
                self.write_text(&error.to_string());
                TOLD_OTHER
            }
        };
        self.answers[place as usize].store(word, Ordering::SeqCst);
    }

    pub fn told(&self, place: Answer) -> Told {
        match self.answers[place as usize].load(Ordering::SeqCst) {
            0 => Told::Nothing,
            TOLD_FENCED => Told::Fenced,
            TOLD_WAIT => Told::Wait,
            TOLD_OTHER => Told::Other(self.text()),
            ok => Told::Ok(ok - 1),
        }
    }

    pub fn write_text(&self, text: &str) {
        let bytes = text.as_bytes();
        for (to, from) in self.text.iter().zip(bytes) {
            to.store(*from, Ordering::SeqCst);
        }
        self.text_len.store(bytes.len().min(self.text.len()) as u64, Ordering::SeqCst);
    }

    pub fn text(&self) -> String {
        let len = self.text_len.load(Ordering::SeqCst) as usize;
        let bytes: Vec<u8> = self.text[..len].iter().map(|b| b.load(Ordering::SeqCst)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Notes a message that was consumed and handed out.
    pub fn hand(&self, seq: u64) {
        note(&self.handed_len, &self.handed, seq);
    }

    /// Notes a message that was shown and not consumed.
    pub fn show(&self, seq: u64) {
        note(&self.shown_len, &self.shown, seq);
    }

    pub fn handed(&self) -> Vec<u64> {
        noted(&self.handed_len, &self.handed)
    }

    pub fn shown(&self) -> Vec<u64> {
        noted(&self.shown_len, &self.shown)
    }
}

fn note(len: &AtomicU64, list: &[AtomicU64; NOTES], seq: u64) {
    let at = len.load(Ordering::Relaxed);
    list[at as usize].store(seq, Ordering::Relaxed);
    len.store(at + 1, Ordering::Release);
}

fn noted(len: &AtomicU64, list: &[AtomicU64; NOTES]) -> Vec<u64> {
    let len = len.load(Ordering::Acquire) as usize;
    list[..len].iter().map(|seq| seq.load(Ordering::Relaxed)).collect()
}
