//! Opening a bus as the command line says.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use eshm::{Cleanup, Disconnect, Endpoint, Error, Options, PeerState, Role, Takeover, Wait};
use tracing::{debug, info};

use crate::exit::{Failure, Outcome};
use crate::output::pid;
use crate::parse;
use crate::signals::{SLICE, Stop};

/// Where they are unless said otherwise.
pub const USUAL: &str = "/dev/shm";

/// Where the segments are.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The directory of the segments
    #[arg(
        long,
        value_name = "PATH",
        env = "ESHM_DIR",
        default_value = USUAL,
        global = true,
        help_heading = "Global"
    )]
    pub dir: PathBuf,
}

impl Place {
    /// A command line of this program that looks into this directory.
    pub fn command(&self, command: &str) -> String {
        if self.dir == Path::new(USUAL) {
            return format!("eshm {command}");
        }
        format!("eshm --dir {} {command}", self.dir.display())
    }
}

/// After that long a wait for a segment something may be wrong with the place.
const HINT_AFTER: Duration = Duration::from_secs(3);

/// Who is on the other side, and how it is.
pub fn other_side(bus: &Endpoint) -> String {
    let (role, peer) = (bus.role().peer(), bus.peer());
    match peer.state {
        PeerState::Absent => format!("no {role} is there yet"),
        PeerState::Left => format!("the {role} ({}) has left", pid::of(&peer)),
        state => format!("the {role} ({}) is {state}", pid::of(&peer)),
    }
}

/// Which end of a bus to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Makes the segment, or takes the place of a master that is gone
    Master,
    /// Attaches to the segment of a master
    Slave,
    /// Whichever is free
    Auto,
}

/// What to do with the present owner of the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TakeoverArg {
    /// Leave it alone
    Never,
    /// Replace it if its heartbeat stands still
    Hung,
    /// Replace it
    Always,
}

/// How to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitArg {
    /// Burn the core: the lowest latency
    Spin,
    /// Spin a little, then sleep
    Adaptive,
    /// Sleep at once
    Park,
}

/// What is wished for the bus when both sides have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CleanupArg {
    /// Remove it when nothing is unread
    WhenRead,
    /// Remove it, whatever is unread
    Always,
    /// Leave it
    Never,
}

impl CleanupArg {
    /// The library's word for it.
    pub fn wish(self) -> Cleanup {
        match self {
            CleanupArg::WhenRead => Cleanup::WhenRead,
            CleanupArg::Always => Cleanup::Always,
            CleanupArg::Never => Cleanup::Never,
        }
    }
}

/// How to open a bus.
#[derive(Debug, Clone, Args)]
pub struct Bus {
    /// The name of the bus
    pub name: String,
    /// Which end to be [default: the one this command is usually]
    #[arg(long, value_enum, value_name = "ROLE")]
    pub role: Option<RoleArg>,
    /// What to do if a living or hung process has the role
    #[arg(long, value_enum, value_name = "WHEN", default_value = "never")]
    pub takeover: TakeoverArg,
    /// How to wait
    #[arg(long, value_enum, value_name = "HOW", default_value = "adaptive")]
    pub wait: WaitArg,
    /// Bytes per frame of a new segment, a multiple of 64
    #[arg(long, value_name = "BYTES", value_parser = parse::size)]
    pub frame_size: Option<u64>,
    /// Frames per direction of a new segment, a power of two
    #[arg(long, value_name = "N", value_parser = parse::size)]
    pub frames: Option<u64>,
    /// Permission bits of a new segment, in octal [default: 600], and the most that one found may have
    #[arg(long, value_name = "OCTAL", value_parser = parse::mode)]
    pub mode: Option<u32>,
    /// Use a segment of this user too, by name or number; else only one's own and root's
    #[arg(long, value_name = "USER", value_parser = parse::user)]
    pub trust: Vec<u32>,
    /// How long to wait, as a slave, for a master to make the segment: a time, 0 for not at all, or
    /// forever [default: --timeout if there is one, else forever]
    #[arg(long, value_name = "TIME", value_parser = parse::patience)]
    pub open_timeout: Option<Duration>,
    /// When both sides have left, whether the bus is removed; the more careful wish of the two counts
    /// [default: when-read; ping and echo: always]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub cleanup: Option<CleanupArg>,
    #[command(flatten)]
    pub place: Place,
}

impl Bus {
    /// The role asked for, or the usual one.
    pub fn role_or(&self, usual: Role) -> Role {
        match self.role {
            None => usual,
            Some(RoleArg::Master) => Role::Master,
            Some(RoleArg::Slave) => Role::Slave,
            Some(RoleArg::Auto) => Role::Auto,
        }
    }

    /// The library's options for all this.
    pub fn options(&self, usual: Role) -> Outcome<Options> {
        let mut options = Options::new(&self.name);
        options.directory(&self.place.dir).role(self.role_or(usual));
        // Waiting for a master is done here, where Ctrl-C and a hint come in between.
        options.on_disconnect(Disconnect::Never).open_timeout(Duration::ZERO);
        if let Some(mode) = self.mode {
            options.mode(mode);
        }
        for &user in &self.trust {
            options.trust_user(user);
        }
        if let Some(cleanup) = self.cleanup {
            options.cleanup(cleanup.wish());
        }
        options.takeover(match self.takeover {
            TakeoverArg::Never => Takeover::Never,
            TakeoverArg::Hung => Takeover::Hung,
            TakeoverArg::Always => Takeover::Always,
        });
        options.wait(match self.wait {
            WaitArg::Spin => Wait::Spin,
            WaitArg::Adaptive => Wait::Adaptive,
            WaitArg::Park => Wait::Park,
        });
        if let Some(bytes) = self.frame_size {
            let bytes = u32::try_from(bytes).map_err(|_| {
                Failure::new(crate::exit::USAGE, format!("--frame-size {bytes}: too large"))
            })?;
            options.frame_size(bytes);
        }
        if let Some(frames) = self.frames {
            options.frames(frames);
        }
        Ok(options)
    }

    /// Opens the bus; a slave waits for its master as long as was said, else up to `timeout`.
    pub fn open(
        &self,
        options: &Options,
        timeout: Option<Duration>,
        stop: &Stop,
    ) -> Outcome<Endpoint> {
        let timeout = self.open_timeout.or(timeout);
        let endpoint = wait_open(
            || options.open(),
            timeout,
            stop,
            |patience| {
                patience.tell(&self.name, &options.path());
            },
        )?;
        for refusal in endpoint.refused() {
            tracing::warn!("the system refused {}: {}", refusal.what, refusal.why);
        }
        info!("opened {} as {}, epoch {}", endpoint.name(), endpoint.role(), endpoint.epoch());
        Ok(endpoint)
    }
}

/// How long a segment is waited for already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It is not there at once.
    Begun,
    /// So long that the place may be the wrong one.
    Long,
}

impl Patience {
    /// Says so, of the bus `name` at `path`.
    pub fn tell(self, name: &str, path: &Path) {
        match self {
            Patience::Begun => eprintln!("eshm: waiting for a master of {name}"),
            Patience::Long => eprintln!("eshm: {}", nothing_here(path)),
        }
    }
}

/// The hint for who may look in another place than the other side.
fn nothing_here(path: &Path) -> String {
    let directory = path.parent().unwrap_or(path).display();
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    format!(
        "still no {file} in {directory}: the other side must see the same directory \
         (a container or a service may have a {directory} of its own; share it, or another with --dir)"
    )
}

/// Opens; where there is no segment yet, says so once, later once more, and tries until there is one.
pub fn wait_open<T>(
    mut open: impl FnMut() -> eshm::Result<T>,
    timeout: Option<Duration>,
    stop: &Stop,
    say: impl Fn(Patience),
) -> Outcome<T> {
    let started = Instant::now();
    let mut said = None;
    loop {
        stop.check()?;
        match open() {
            Err(Error::NotFound { path }) => {
                if timeout.is_some_and(|limit| started.elapsed() >= limit) {
                    return Err(Error::NotFound { path }.into());
                }
                let is_long = started.elapsed() >= HINT_AFTER;
                let patience = if is_long { Patience::Long } else { Patience::Begun };
                if said != Some(patience) {
                    say(patience);
                    said = Some(patience);
                }
            }
            // The role's lock moves with its owner from a sealed segment to the new one.
            Err(Error::RoleTaken { state: "moving", pid, .. }) => {
                debug!("pid {pid} is moving over")
            }
            other => return Ok(other?),
        }
        stop.sleep(SLICE)?;
    }
}
