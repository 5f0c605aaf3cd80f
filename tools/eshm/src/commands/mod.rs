//! One file (or folder) per command.

pub mod bench;
pub mod complete;
pub mod demo;
pub mod doctor;
pub mod echo;
pub mod gc;
pub mod ls;
pub mod man;
pub mod pace;
pub mod ping;
pub mod recv;
mod removal;
pub mod rm;
pub mod send;
pub mod stat;
pub mod tap;
pub mod top;
