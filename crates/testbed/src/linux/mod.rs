//! The bed on Linux: users and PAM services in namespaces of their own, and clients, displays and seats to try.

mod accounts;
mod bed;
mod client;
pub mod confine;
mod control;
pub mod display;
mod enter;
pub mod logind;
mod pam;
mod probe;
mod sys;
pub mod tricks;
pub mod wayland;
pub mod window;

pub use accounts::User;
pub use bed::{Bed, Mode, PamEvent, ROOT};
pub use client::{ClientBuilder, RunningClient};
pub use enter::{EnterOptions, Entry, enter, run_stage_if_asked};
pub use pam::{AT_A_DESKTOP, OF_A_DESKTOP};
pub use probe::{Capabilities, Ids, Keyring, Limit, Probe, Scheduling, Signals};
pub use sys::{end_this_thread, take_deadlines, take_odd_attributes, take_slice};
