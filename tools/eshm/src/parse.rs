//! Values as people write them on a command line: `250ms`, `64K`, `1.5MiB`.

use std::time::Duration;

use eshm::Schema;

/// A length of time: a number with `ns`, `us`, `ms`, `s`, `m` or `h`; seconds without a unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let seconds = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("\"{unit}\" is no unit of time: ns, us, ms, s, m, h")),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

/// A length of time that may have no end.
pub fn patience(text: &str) -> Result<Duration, String> {
    if text == "forever" { Ok(Duration::MAX) } else { duration(text) }
}

/// A number of bytes or of things: `K`, `M`, `G` count in 1024, with or without `iB`.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let factor = match unit.trim_end_matches("iB").trim_end_matches('B') {
        "" => 1.0,
        "k" | "K" => 1024.0,
        "m" | "M" => 1024.0 * 1024.0,
        "g" | "G" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("\"{unit}\" is no unit of size: K, M, G")),
    };
    whole(number * factor)
}

/// A number of things: `k` and `M` count in thousands.
pub fn count(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" => 1.0,
        "k" | "K" => 1e3,
        "m" | "M" => 1e6,
        _ => return Err(format!("\"{unit}\" is no unit of count: k, M")),
    };
    whole(number * factor)
}

/// Permission bits in octal.
pub fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("permission bits in octal, as 600 or 660".into()),
    }
}

/// What the messages of one direction are: `NAME:VERSION`.
pub fn schema(text: &str) -> Result<Schema, String> {
    let (name, version) = text.rsplit_once(':').unwrap_or((text, ""));
    if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
        return Err("NAME:VERSION, with a name of 1 to 64 bytes, as telemetry:3".into());
    }
    match version.parse() {
        Ok(version) => Ok(Schema::new(name, version)),
        Err(_) => Err("NAME:VERSION, with a whole number as the version, as telemetry:3".into()),
    }
}

/// A user, by number or by name.
pub fn user(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err("no such user".into()),
        Err(errno) => Err(errno.desc().into()),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked")]
fn whole(number: f64) -> Result<u64, String> {
    if number < 9e18 { Ok(number.round() as u64) } else { Err("too large".into()) }
}

/// The number and the unit behind it.
fn split(text: &str) -> Result<(f64, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 =
        text[..end].parse().map_err(|_| "a number, with or without a unit".to_string())?;
    Ok((number, text[end..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sizes_and_counts_are_read_as_people_write_them() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!((patience("0"), patience("2s")), (Ok(Duration::ZERO), duration("2s")));
        assert_eq!(patience("forever"), Ok(Duration::MAX));
        assert_eq!(size("64K"), Ok(65536));
        assert_eq!(size("1.5MiB"), Ok(1_572_864));
        assert_eq!(count("100k"), Ok(100_000));
        assert_eq!(mode("660"), Ok(0o660));
        assert_eq!((user("1000"), user("root")), (Ok(1000), Ok(0)));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(duration("soon").is_err());
        assert!(duration("3 fortnights").is_err());
        assert!(size("-1").is_err());
        assert!(size("1e30").is_err());
        assert!(count("").is_err());
        assert!(mode("1777").is_err());
        assert!(user("no such user").is_err());
    }
}
