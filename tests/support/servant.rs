//! A process that holds an endpoint and does with it what it is told, one line at a time.
//!
//! It answers each line with one of its own: `ok ...` or `err <what was done> <the error>`.

use std::time::Duration;

use eshm::{Batch, Disconnect, Endpoint, Error, Options, Overflow, Role, Takeover, Wait};

use super::child::leave_at_once;
use super::{Child, PATIENCE, Talk, fill, message, number_of};

/// A servant, seen from its master's side.
pub struct Servant(pub Child);

impl Servant {
    pub fn new() -> Servant {
        Servant(Child::spawn("servant", ""))
    }

    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        self.0.ask(line)
    }

    /// Asks for something that must work.
    #[track_caller]
    pub fn must(&mut self, line: &str) -> String {
        let answer = self.ask(line);
        assert!(answer.starts_with("ok"), "{line}: {answer}");
        answer[2..].trim().to_owned()
    }

    #[track_caller]
    pub fn send(&mut self, first: u64, count: u64) {
        self.must(&format!("send {first} {count} 100"));
    }

    /// Reads messages, which must be these.
    #[track_caller]
    pub fn expect(&mut self, first: u64, count: u64) {
        let answer = self.must(&format!("recv {count}"));
        let expected: Vec<String> = (first..first + count).map(|n| n.to_string()).collect();
        assert_eq!(answer, expected.join(" "));
    }
}

impl std::ops::Deref for Servant {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl std::ops::DerefMut for Servant {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

/// Options out of words such as `role=master stale=50`.
pub fn options(name: &str, words: &[&str]) -> Options {
    let mut options = Options::new(name);
    options.read_timeout(PATIENCE).write_timeout(PATIENCE).open_timeout(Duration::ZERO);
    if words.contains(&"role=master") {
        options.frames(1024);
    }
    for word in words {
        let (key, value) = word.split_once('=').expect("key=value");
        let number = || value.parse::<u64>().expect("a number");
        let ms = || Duration::from_millis(number());
        match key {
            "dir" => options.directory(value),
            "role" => options.role(role_of(value)),
            "takeover" => options.takeover(match value {
                "always" => Takeover::Always,
                "hung" => Takeover::Hung,
                _ => Takeover::Never,
            }),
            "frames" => options.frames(number()),
            "frame_size" => options.frame_size(number() as u32),
            "overwrite" => options.overflow(Overflow::Overwrite),
            "stale" => options.stale_after(ms()),
            "beat" => options.beat_interval(ms()),
            "background" => options.background(number() != 0),
            "cleanup" => options.cleanup(if number() != 0 {
                eshm::Cleanup::Always
            } else {
                eshm::Cleanup::Never
            }),
            "park" => options.wait(Wait::Park),
            "mode" => options.mode(u32::from_str_radix(value, 8).expect("a mode")),
            "timeout" => options.read_timeout(ms()).write_timeout(ms()),
            "disconnect" => options.on_disconnect(match value {
                "now" => Disconnect::Immediately,
                "never" => Disconnect::Never,
                _ => Disconnect::OnTimeout,
            }),
            "guard" => options.guard_sigbus(true),
            "prefault" => options.prefault(true),
            "trust" => options.trust_user(number() as u32),
            "writes" => options.writes(schema(value)),
            "reads" => options.reads(schema(value)),
            _ => panic!("no such option: {key}"),
        };
    }
    options
}

/// A schema as `NAME:VERSION`.
fn schema(word: &str) -> eshm::Schema {
    let (name, version) = word.rsplit_once(':').expect("name:version");
    eshm::Schema::new(name, version.parse().expect("a version"))
}

pub fn role_of(word: &str) -> Role {
    match word {
        "master" => Role::Master,
        "slave" => Role::Slave,
        _ => Role::Auto,
    }
}

/// The part of the servant.
pub fn serve(talk: &mut Talk) {
    let mut seat: Option<Endpoint> = None;
    loop {
        let line = talk.hear();
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or("");
        let words: Vec<&str> = words.collect();
        let answer = match (verb, &mut seat) {
            ("open", _) => match options(words[0], &words[1..]).open() {
                Ok(endpoint) => {
                    let answer = format!("ok {} {}", endpoint.role(), endpoint.epoch());
                    seat = Some(endpoint);
                    answer
                }
                Err(error) => format!("err 0 {error:?}"),
            },
            ("exit", _) => leave_at_once(0),
            (_, None) => "err 0 nothing is open".to_owned(),
            ("leave", seat) => told(seat.take().expect("open").leave().map(|()| String::new())),
            (verb, Some(endpoint)) => obey(talk, endpoint, verb, &words),
        };
        talk.say(answer);
    }
}

fn told(done: Result<String, Error>) -> String {
    match done {
        Ok(text) => format!("ok {text}"),
        Err(error) => format!("err 0 {error:?}"),
    }
}

fn obey(talk: &mut Talk, endpoint: &mut Endpoint, verb: &str, words: &[&str]) -> String {
    let number = |index: usize| words[index].parse::<u64>().expect("a number");
    match verb {
        "send" => send(endpoint, number(0), number(1), number(2) as usize),
        "recv" => receive(endpoint, number(0)),
        "batch" => {
            let messages: Vec<_> = (number(0)..number(0) + number(1))
                .map(|n| message(n, number(2) as usize))
                .collect();
            told(endpoint.try_write_many(&messages).map(|count| count.to_string()))
        }
        "claim" => claim(talk, endpoint, number(0), number(1) as usize),
        "peek" => peek(talk, endpoint),
        "peek_many" => peek_many(talk, endpoint, number(0) as usize),
        "read_many" => {
            let mut batch = Batch::with_capacity(1 << 16, number(0) as usize);
            match endpoint.try_read_many(&mut batch) {
                Ok(_) => format!("ok {}", joined(batch.iter().map(|(_, bytes)| number_of(bytes)))),
                Err(error) => format!("err 0 {error:?}"),
            }
        }
        "committed" => format!("ok {:?}", endpoint.last_committed()),
        "last" => format!("ok {:?}", endpoint.last_id()),
        "peer" => {
            let peer = endpoint.peer();
            format!("ok {} {} {}", peer.state, peer.pid, peer.progress)
        }
        "wait" => told(endpoint.wait_for_peer(PATIENCE).map(|peer| peer.pid.to_string())),
        "epoch" => format!("ok {}", endpoint.epoch()),
        "beat" => {
            endpoint.beat();
            "ok".to_owned()
        }
        _ => panic!("no such word: {verb}"),
    }
}

fn send(endpoint: &mut Endpoint, first: u64, count: u64, longest: usize) -> String {
    for done in 0..count {
        if let Err(error) = endpoint.write(&message(first + done, longest)) {
            return format!("err {done} {error:?}");
        }
    }
    "ok".to_owned()
}

fn receive(endpoint: &mut Endpoint, count: u64) -> String {
    let mut buffer = vec![0; 1 << 16];
    let mut numbers = Vec::new();
    for done in 0..count {
        match endpoint.read(&mut buffer) {
            Ok(len) => numbers.push(number_of(&buffer[..len])),
            Err(error) => return format!("err {done} {error:?}"),
        }
    }
    format!("ok {}", joined(numbers))
}

pub fn joined(numbers: impl IntoIterator<Item = u64>) -> String {
    let words: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
    words.join(" ")
}

/// Fills a claim half, says so, fills the rest, and ends it as it hears.
fn claim(talk: &mut Talk, endpoint: &mut Endpoint, number: u64, len: usize) -> String {
    let mut claim = match endpoint.claim(len) {
        Ok(claim) => claim,
        Err(error) => return format!("err 0 {error:?}"),
    };
    fill(number, &mut claim[..len / 2]);
    talk.say("claimed");
    let end = talk.hear();
    fill(number, &mut claim);
    match end.as_str() {
        "commit" => told(claim.commit().map(|()| String::new())),
        _ => "ok".to_owned(),
    }
}

fn peek(talk: &mut Talk, endpoint: &mut Endpoint) -> String {
    let peek = match endpoint.peek() {
        Ok(peek) => peek,
        Err(error) => return format!("err 0 {error:?}"),
    };
    talk.say(format!("peeked {}", number_of(&peek)));
    match talk.hear().as_str() {
        "release" => told(peek.release().map(|()| String::new())),
        _ => "ok".to_owned(),
    }
}

fn peek_many(talk: &mut Talk, endpoint: &mut Endpoint, most: usize) -> String {
    let mut batch = Batch::with_capacity(1 << 16, most);
    let peeked = match endpoint.try_peek_many(&mut batch) {
        Ok(peeked) => peeked,
        Err(error) => return format!("err 0 {error:?}"),
    };
    talk.say(format!("peeked {}", joined(peeked.iter().map(|(_, bytes)| number_of(bytes)))));
    match talk.hear().as_str() {
        "release" => told(peeked.release().map(|()| String::new())),
        _ => "ok".to_owned(),
    }
}
