//! Gives the shared library its name for ever: programs built against ESHM 1.0 look for this one.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libeshm.so.1");
    println!("cargo:rerun-if-changed=build.rs");
}
