//! A file as a whole: its beginning, blocks that know their offsets, its end.
//!
//! Because each block says where it belongs, a receiver may get one twice (after a restart) and
//! the copy is still the same. The file is read straight into the ring.

use std::io::{self, Read, Seek, SeekFrom};

use crate::commands::pace::Pace;
use crate::exit::{Failure, Outcome, USAGE};
use crate::record::{BLOCK_HEADER, Block};

use super::input::Input;
use super::outlet::Outlet;

/// Sends the file in blocks of `block` bytes; the first `done` messages are sent already.
pub fn send(
    mut input: Input<'_>,
    outlet: &mut Outlet<'_>,
    block: u64,
    done: u64,
    mut pace: Option<Pace>,
) -> Outcome {
    let block = fit(block, outlet)?;
    if done == 0 {
        outlet.put(&Block::Begin(input.size()).header())?;
    }
    let mut offset = done.saturating_sub(1) * block as u64;
    if let Some(total) = input.size().filter(|_| done > 0) {
        let end_is_sent = done > total.div_ceil(block as u64) + 1;
        offset = offset.min(total);
        input.file().seek(SeekFrom::Start(offset))?;
        outlet.start_at(offset);
        if end_is_sent {
            return Ok(());
        }
    }
    loop {
        if let Some(pace) = &mut pace {
            pace.wait(outlet.stop())?;
        }
        let sent = send_block(&mut input, outlet, offset, block)?;
        if sent == 0 {
            break;
        }
        offset += sent;
    }
    outlet.put(&Block::End(offset).header())
}

/// The block size that this ring carries.
fn fit(block: u64, outlet: &Outlet<'_>) -> Outcome<usize> {
    let most = outlet.max_message();
    if most <= BLOCK_HEADER {
        return Err(Failure::new(
            USAGE,
            format!("messages of {most} bytes are too short for a file"),
        ));
    }
    // A quarter of the ring's longest keeps both sides busy at once.
    let comfortable = (most / 4).max(most.min(4096)) - BLOCK_HEADER;
    Ok(usize::try_from(block).unwrap_or(usize::MAX).min(comfortable))
}

/// Reads one block into the ring; gives its length, 0 at the end of the input.
fn send_block(
    input: &mut Input<'_>,
    outlet: &mut Outlet<'_>,
    offset: u64,
    block: usize,
) -> Outcome<u64> {
    input.wait()?;
    let whole = input.identity().is_some();
    let mut got = 0;
    outlet.put_in_place(BLOCK_HEADER + block, |claim| {
        let (header, data) = claim.split_at_mut(BLOCK_HEADER);
        header.copy_from_slice(&Block::Data(offset).header());
        got = read_block(input.file(), data, whole).map_err(|error| input.about(error))?;
        Ok((got > 0).then_some(BLOCK_HEADER + got))
    })?;
    Ok(got as u64)
}

/// Reads until the block is full, if blocks must be whole, else what one read gives.
fn read_block(file: &mut impl Read, data: &mut [u8], whole: bool) -> io::Result<usize> {
    let mut filled = 0;
    while filled < data.len() {
        match file.read(&mut data[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if !whole {
            break;
        }
    }
    Ok(filled)
}
