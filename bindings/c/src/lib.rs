//! `libeshm.so.1` and `libeshm.a`: the C interface of eshm.
//!
//! What each function promises stands in `include/eshm.h`; here is how it is kept. A call goes
//! through four thin layers:
//!
//! ```text
//!   C program
//!      |  a pointer that may be anything
//!   guard    one per call: a panic or an error becomes the value that the function returns
//!   slab     the handle is looked up, never followed: closed and foreign ones are told apart
//!   seat     one thread at a time on each half; without an atomic operation for its usual thread
//!   eshm     the public Rust interface
//! ```
//!
//! The three calls that carry messages have a shorter way for that thread, past the slab and the seat
//! ([`path`]), and two more functions of eshm for it, which are not for others.
//!
//! Reading order: [`guard`], [`fault`], [`slab`], [`turn`] with [`thread`], [`seat`], [`bus`], then
//! the calls: [`classic`], [`path`] and [`again`] (ESHM 1.0), and [`open`], [`message`], [`batch`], [`place`], [`state`],
//! [`tap`], [`list`]. The structs of the headers are in [`types`]; [`sized`] lets them grow.

pub mod again;
pub mod batch;
pub mod bus;
pub mod classic;
pub mod fault;
pub mod guard;
pub mod list;
pub mod message;
pub mod open;
pub mod path;
pub mod place;
pub mod seat;
pub mod sized;
pub mod slab;
pub mod state;
pub mod tap;
pub mod thread;
pub mod turn;
pub mod types;
