//! eshm
#![allow(dead_code)]
pub mod config;
pub mod error;
mod layout;
mod ring;
mod sync;
