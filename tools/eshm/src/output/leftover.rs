//! Files that were moved aside to be removed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long ago it was moved aside; `None` if it is gone.
pub fn age(path: &Path) -> Option<Duration> {
    let about = fs::symlink_metadata(path).ok()?;
    let moved = UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(about.ctime()).ok()?))?;
    Some(SystemTime::now().duration_since(moved).unwrap_or_default())
}
