//! What is to be measured: the options of the command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::contenders::{self, Entry};

/// The message sizes, in bytes, that the loops are compiled for.
pub const SIZES: [usize; 6] = [8, 48, 256, 1024, 4096, 65536];

/// Printed for `--help`.
pub const HELP: &str = "\
versus: eshm and its peers, measured side by side

  --quick            48 and 4096 bytes, 3 short rounds; under a minute
  --sizes A,B,…      message sizes in bytes, of 8, 48, 256, 1024, 4096, 65536 (default: all)
  --only A,B,…       only these contenders, and what they are divided by
  --rounds N         every figure is the median of so many rounds (default 5)
  --millis N         how long one measurement lasts (default 200)
  --ring-bytes N     memory for the messages of one direction (default 524288)
  --cores A,B        the cores of the two sides (default 0,1)
  --unpinned         leave the placing to the kernel
  --json FILE        also write every figure to FILE
  --list             only name the contenders and their settings
";

/// The options.
pub struct Plan {
    /// Message sizes in bytes.
    pub sizes: Vec<usize>,
    /// Who takes part.
    pub contenders: Vec<&'static Entry>,
    /// How often everything is measured.
    pub rounds: usize,
    /// How long one measurement lasts.
    pub length: Duration,
    /// Memory for the messages of one direction.
    pub ring_bytes: usize,
    /// The cores of the near and the far side; `None` when unpinned.
    pub cores: Option<(usize, usize)>,
    /// Where the figures go.
    pub json: Option<PathBuf>,
    /// Only name the contenders.
    pub list: bool,
}

impl Plan {
    /// Reads the command line; `None` when help was asked for.
    pub fn parse(args: &[String]) -> Result<Option<Plan>, String> {
        let mut plan = Plan {
            sizes: SIZES.to_vec(),
            contenders: contenders::ALL.iter().collect(),
            rounds: 5,
            length: Duration::from_millis(200),
            ring_bytes: 512 << 10,
            cores: Some((0, 1)),
            json: None,
            list: false,
        };
        let mut args = args.iter();
        while let Some(option) = args.next() {
            let mut value = || args.next().ok_or(format!("{option} needs a value; see --help"));
            match option.as_str() {
                "--help" | "-h" => return Ok(None),
                "--quick" => {
                    plan.sizes = vec![48, 4096];
                    plan.rounds = 3;
                    plan.length = Duration::from_millis(50);
                }
                "--sizes" => plan.sizes = sizes(value()?)?,
                "--only" => plan.contenders = contenders_named(value()?)?,
                "--rounds" => plan.rounds = number(option, value()?)?.max(1),
                "--millis" => {
                    let millis = number(option, value()?)?.clamp(1, 20_000);
                    plan.length = Duration::from_millis(millis as u64);
                }
                "--ring-bytes" => plan.ring_bytes = ring_bytes(number(option, value()?)?)?,
                "--cores" => plan.cores = Some(cores(value()?)?),
                "--unpinned" => plan.cores = None,
                "--json" => plan.json = Some(value()?.into()),
                "--list" => plan.list = true,
                _ => return Err(format!("{option}: no such option; see --help")),
            }
        }
        Ok(Some(plan))
    }
}

/// How many messages of this size may wait in one direction. The same for all whose capacity is
/// counted in messages: what fits the ring, at a whole number of cache lines each.
pub fn slots(ring_bytes: usize, bytes: usize) -> usize {
    (ring_bytes / bytes.next_multiple_of(64)).max(4).next_power_of_two()
}

fn number(option: &str, text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{option} {text}: not a number"))
}

fn sizes(list: &str) -> Result<Vec<usize>, String> {
    let parse = |text: &str| match number("--sizes", text)? {
        size if SIZES.contains(&size) => Ok(size),
        size => Err(format!("--sizes {size}: the loops are compiled for {SIZES:?} only")),
    };
    list.split(',').map(parse).collect()
}

fn contenders_named(list: &str) -> Result<Vec<&'static Entry>, String> {
    let names: Vec<&str> = list.split(',').collect();
    for name in &names {
        contenders::named(name)?;
    }
    let wanted = |entry: &&Entry| entry.is_yardstick() || names.contains(&entry.name);
    Ok(contenders::ALL.iter().filter(wanted).collect())
}

fn ring_bytes(bytes: usize) -> Result<usize, String> {
    match bytes.is_power_of_two() && bytes >= 256 << 10 {
        true => Ok(bytes),
        false => Err(format!("--ring-bytes {bytes}: not a power of two of at least 262144")),
    }
}

fn cores(pair: &str) -> Result<(usize, usize), String> {
    let (near, far) = pair.split_once(',').ok_or("--cores: two numbers, as in 0,1")?;
    Ok((number("--cores", near)?, number("--cores", far)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Plan>, String> {
        let args: Vec<String> = line.split_whitespace().map(String::from).collect();
        Plan::parse(&args)
    }

    #[test]
    fn later_options_win_over_quick() {
        let plan = parse("--quick --rounds 7 --sizes 8,256 --unpinned").unwrap().unwrap();
        assert_eq!((plan.rounds, plan.sizes.as_slice(), plan.cores), (7, &[8, 256][..], None));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, word) in [
            ("--sizes 49", "49"),
            ("--only nobody", "nobody"),
            ("--rounds", "--rounds"),
            ("--ring-bytes 1000", "1000"),
            ("--speed", "--speed"),
        ] {
            assert!(parse(line).err().unwrap().contains(word), "{line}");
        }
    }

    #[test]
    fn slots_are_a_power_of_two_and_never_too_few() {
        assert_eq!(slots(512 << 10, 48), 8192);
        assert_eq!(slots(512 << 10, 65536), 8);
        assert_eq!(slots(256 << 10, 65536), 4);
    }
}
