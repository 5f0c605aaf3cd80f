//! Zero copy: an image is made in shared memory, and looked at where it lies.

use eshm::{Options, Role};

const IMAGE: usize = 256 * 256;

fn main() -> eshm::Result<()> {
    let name = format!("zero-copy-{}", std::process::id());
    // A message takes up to half a ring, so these rings hold at least eight images.
    let mut camera = Options::new(&name).role(Role::Master).frames(8192).open()?;
    let mut screen = Options::new(&name).role(Role::Slave).open()?;

    let mut image = camera.claim(IMAGE)?;
    for (index, pixel) in image.iter_mut().enumerate() {
        *pixel = (index % 251) as u8;
    }
    image.commit()?; // without it the claim would leave nothing behind

    let image = screen.peek()?;
    let brightest = image.iter().max().copied().unwrap_or(0);
    println!("image {} of {} bytes, brightest pixel {brightest}", image.id(), image.len());
    image.release()?; // without it the image would be shown again
    Ok(())
}
