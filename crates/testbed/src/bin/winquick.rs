//! Ends at once. Of the windows subsystem, so that no console is made for it; it takes no library but the system's own:
//! what creating a process costs is then nearly all that it costs.
#![cfg_attr(windows, windows_subsystem = "windows")]

fn main() {}
