//! Gives the shared library its name for ever: programs built against ESHM 1.0 look for this one.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libeshm.so.1");
    // A thread, a signal handler and the words of threads lead into it: it stays once it was loaded.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
