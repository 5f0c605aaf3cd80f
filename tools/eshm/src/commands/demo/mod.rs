//! `eshm demo`: what a bus survives, shown in fifteen seconds with real processes.
//!
//! A master streams numbered, checked messages to a slave. Half-way it is killed with SIGKILL and
//! replaced; later it is frozen with SIGSTOP, fenced, and woken up again. At the end the ledger
//! must be clean: that is the exit code.

mod actor;
pub mod consumer;
mod event;
mod ledger;
mod message;
pub mod producer;
mod view;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::clock;
use crate::exit::{FAILED, Failure, Outcome};
use crate::open::Place;
use crate::output::units::{count, nanos};
use crate::parse;
use crate::signals::Stop;

use actor::{Actor, Who};
use event::Event;
use ledger::{Fault, Ledger};
use view::{Panel, Screen};

/// Whatever a process has to do must be done by then.
const LIMIT: Duration = Duration::from_secs(10);
/// The panel is drawn that often.
const FRAME: Duration = Duration::from_millis(50);

/// Options of `eshm demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long the show takes, about
    #[arg(long, value_name = "TIME", value_parser = parse::duration, default_value = "15s")]
    time: Duration,
    /// Messages per second
    #[arg(long, value_name = "PER_S", value_parser = parse::count, default_value = "100k")]
    rate: u64,
    /// The name of the bus [default: demo-PID]
    #[arg(long)]
    name: Option<String>,
    /// Only the ledger, in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    place: Place,
}

impl Args {
    /// Plays it.
    pub fn run(self) -> Outcome {
        let stop = Stop::install()?;
        let name = self.name.clone().unwrap_or_else(|| format!("demo-{}", std::process::id()));
        let mut stage = Stage::new(&self, name, &stop);
        let played = stage.play(self.time);
        let ledger = stage.ledger;
        let paint = stage.screen.paint();
        stage.clear();
        played?;
        let complaints = ledger.complaints();
        if self.json {
            println!("{}", ledger.json());
        } else {
            println!("\n{}", ledger.render(paint));
        }
        if !complaints.is_empty() {
            return Err(Failure::new(
                FAILED,
                format!("the ledger is not clean: {}", complaints.join(", ")),
            ));
        }
        if !self.json {
            println!("  {} Nothing lost, nothing doubled, nothing torn.", paint.green("✓"));
            println!(
                "    Now you, in two terminals:  {}   {}",
                paint.bold("eshm recv first"),
                paint.bold("eshm send first")
            );
        }
        Ok(())
    }
}

/// Where the processes play.
struct Stage<'a> {
    directory: PathBuf,
    name: String,
    rate: u64,
    stop: &'a Stop,
    screen: Screen,
    panel: Panel,
    started: Instant,
    sender: Sender<(Who, Event)>,
    events: Receiver<(Who, Event)>,
    slave: Option<Actor>,
    master: Option<Actor>,
    /// Replaced, and not yet gone.
    old_master: Option<Actor>,
    opened: Option<(Who, u64, u64)>,
    finished: bool,
    ledger: Ledger,
}

impl<'a> Stage<'a> {
    fn new(args: &Args, name: String, stop: &'a Stop) -> Stage<'a> {
        let (sender, events) = mpsc::channel();
        let panel = Panel {
            name: name.clone(),
            total_s: args.time.as_secs_f64(),
            rates: VecDeque::new(),
            ..Panel::default()
        };
        Stage {
            directory: args.place.dir.clone(),
            name,
            rate: args.rate,
            stop,
            screen: Screen::new(args.json),
            panel,
            started: Instant::now(),
            sender,
            events,
            slave: None,
            master: None,
            old_master: None,
            opened: None,
            finished: false,
            ledger: Ledger::default(),
        }
    }

    /// The whole play.
    fn play(&mut self, time: Duration) -> Outcome {
        let act = time.mul_f64(0.29);
        let title = self.screen.paint().bold("eshm demo");
        self.screen.print(&format!(
            "\n  {title}: telemetry from one process to another, every byte checked\n\n"
        ))?;
        self.open()?;
        self.stream(act)?;
        self.kill()?;
        self.stream(act)?;
        self.freeze()?;
        self.stream(act)?;
        self.finish()
    }

    fn open(&mut self) -> Outcome {
        self.start_master(false)?;
        self.slave =
            Some(Actor::start("demo-slave", &self.directory, &self.name, &[], &self.sender)?);
        let pid = self.slave.as_ref().map_or(0, Actor::pid);
        self.panel.slave = format!("pid {pid}, checks every byte");
        self.until("the first message", |stage| stage.panel.tick.received > 0)?;
        self.say(&format!("a master and a slave (pid {pid}) run, each a process of its own"))
    }

    /// SIGKILL, and another master in its place.
    fn kill(&mut self) -> Outcome {
        let old = self.master.take();
        let pid = old.as_ref().map_or(0, Actor::pid);
        self.ledger.kill = Fault { at_ns: clock::now_ns(), ..Fault::default() };
        if let Some(master) = &old {
            master.signal(Signal::SIGKILL);
        }
        self.master_is(format!("pid {pid}, killed"), false);
        let what = self.screen.paint().red("SIGKILL");
        self.say(&format!("{what} hits the master (pid {pid}) in the middle of its work"))?;
        self.until("the slave to notice the death", |stage| {
            stage.ledger.kill.noticed_ns.is_some()
        })?;
        let noticed = nanos(self.ledger.kill.to_notice().unwrap_or(0));
        self.start_master(false)?;
        self.until("the stream to go on", |stage| stage.ledger.kill.resumed_ns.is_some())?;
        let (next, epoch) = self.opened.map_or((0, 0), |(_, epoch, next)| (next, epoch));
        self.say(&format!(
            "noticed after {noticed}; a new master goes on at message {}",
            count(next)
        ))?;
        let resumed = nanos(self.ledger.kill.to_resume().unwrap_or(0));
        self.say(&format!("the stream flows again {resumed} after the kill, now epoch {epoch}"))
    }

    /// SIGSTOP, a successor that fences, SIGCONT.
    fn freeze(&mut self) -> Outcome {
        let old = self.master.take();
        let pid = old.as_ref().map_or(0, Actor::pid);
        self.ledger.freeze = Fault { at_ns: clock::now_ns(), ..Fault::default() };
        if let Some(master) = &old {
            master.signal(Signal::SIGSTOP);
        }
        self.old_master = old;
        self.master_is(format!("pid {pid}, frozen"), false);
        let what = self.screen.paint().yellow("SIGSTOP");
        self.say(&format!("{what} freezes the master (pid {pid}): it lives, without a heartbeat"))?;
        self.until("the slave to notice the freeze", |stage| {
            stage.ledger.freeze.noticed_ns.is_some()
        })?;
        let noticed = nanos(self.ledger.freeze.to_notice().unwrap_or(0));
        self.start_master(true)?;
        self.until("the stream to go on", |stage| stage.ledger.freeze.resumed_ns.is_some())?;
        let resumed = nanos(self.ledger.freeze.to_resume().unwrap_or(0));
        self.say(&format!(
            "noticed after {noticed}, fenced, flows again {resumed} after the freeze"
        ))?;
        if let Some(old) = &self.old_master {
            old.signal(Signal::SIGCONT);
        }
        self.until("the frozen master to find itself fenced", |stage| stage.ledger.fenced)?;
        self.old_master = None;
        self.say("SIGCONT: it wakes up fenced, and not a byte of it got through")
    }

    /// The last master leaves, the slave reads what is left.
    fn finish(&mut self) -> Outcome {
        if let Some(master) = &mut self.master {
            master.let_go();
        }
        self.until("the master to leave", |stage| stage.ledger.sent > 0)?;
        if let Some(slave) = &mut self.slave {
            slave.let_go();
        }
        self.until("the slave to read the rest", |stage| stage.finished)?;
        for actor in [&mut self.master, &mut self.slave].into_iter().flatten() {
            actor.wait(LIMIT);
        }
        self.screen.print("").map_err(Failure::from)
    }

    fn start_master(&mut self, fence: bool) -> Outcome {
        let mut extra = vec!["--rate".to_string(), self.rate.to_string()];
        extra.extend(fence.then(|| "--fence".to_string()));
        let master =
            Actor::start("demo-master", &self.directory, &self.name, &extra, &self.sender)?;
        let pid = master.pid();
        self.master = Some(master);
        self.until("the master to open the bus", |stage| {
            stage.opened.is_some_and(|opened| opened.0 == pid)
        })?;
        let epoch = self.opened.map_or(0, |opened| opened.1);
        self.master_is(format!("pid {pid}, alive, epoch {epoch}"), true);
        Ok(())
    }

    fn master_is(&mut self, state: String, ok: bool) {
        self.panel.master = state;
        self.panel.master_ok = ok;
    }

    fn stream(&mut self, time: Duration) -> Outcome {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.frame()?;
        }
        Ok(())
    }

    fn until(&mut self, what: &str, done: impl Fn(&Stage<'a>) -> bool) -> Outcome {
        let started = Instant::now();
        while !done(self) {
            if started.elapsed() > LIMIT {
                let remedy = "eshm doctor looks for what stands in the way; -v says more";
                return Err(Failure::new(
                    FAILED,
                    format!("waited {} s in vain for {what}", LIMIT.as_secs()),
                )
                .remedy(remedy));
            }
            self.frame()?;
        }
        Ok(())
    }

    /// Takes in what happened, for one frame or until something did.
    fn frame(&mut self) -> Outcome {
        self.stop.check()?;
        match self.events.recv_timeout(FRAME) {
            Ok((who, event)) => self.take(who, event),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        self.panel.elapsed_s = self.started.elapsed().as_secs_f64();
        if self.panel.tick.received > 0 {
            self.screen.show(&self.panel)?;
        }
        Ok(())
    }

    fn take(&mut self, who: Who, event: Event) {
        match event {
            Event::Opened { epoch, next, .. } => self.opened = Some((who, epoch, next)),
            Event::Fenced { .. } => {
                self.ledger.fenced |= self.old_master.as_ref().is_some_and(|old| old.pid() == who)
            }
            Event::Sent { total } => self.ledger.sent = total,
            Event::Tick(tick) => self.panel.update(tick),
            Event::Noticed { hung, at_ns } => {
                let fault = if hung { &mut self.ledger.freeze } else { &mut self.ledger.kill };
                if fault.at_ns > 0 && fault.noticed_ns.is_none() {
                    fault.noticed_ns = Some(at_ns);
                }
            }
            Event::Resumed { at_ns, .. } => self.resumed(at_ns),
            Event::Received(tick) => {
                self.ledger.seen = tick;
                self.finished = true;
            }
        }
    }

    /// The first message of another master has come: the latest fault is over.
    fn resumed(&mut self, at_ns: u64) {
        let fault = if self.ledger.freeze.at_ns > 0 {
            &mut self.ledger.freeze
        } else {
            &mut self.ledger.kill
        };
        if fault.at_ns > 0 && fault.resumed_ns.is_none() {
            fault.resumed_ns = Some(at_ns);
        }
    }

    fn say(&mut self, text: &str) -> Outcome {
        let elapsed_s = self.started.elapsed().as_secs_f64();
        self.screen.say(elapsed_s, text)?;
        Ok(())
    }

    /// Ends all processes and takes away what they left, if anything went wrong.
    fn clear(mut self) {
        self.old_master = None;
        self.master = None;
        self.slave = None;
        let _ = eshm::remove_in(&self.directory, &self.name, false);
    }
}
