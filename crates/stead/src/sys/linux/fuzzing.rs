//! Every decoder of the library as a function of bytes, for fuzzers and property tests.
//!
//! Each may refuse its input, never panic; what it takes must be written again as the same bytes where the
//! format has but one way to write it.
#![forbid(unsafe_code)]

use std::ffi::CString;

use stead_trampoline::report::Report;
use stead_trampoline::spec::Spec;

use super::{desktop, logon, proc};

/// A decoder's name, and the decoder with what must hold of it.
pub type Target = (&'static str, fn(&[u8]));

/// The decoders.
pub const TARGETS: &[Target] = &[
    ("trampoline_spec", trampoline_spec),
    ("trampoline_report", trampoline_report),
    ("worker_request", logon::fuzz_request),
    ("worker_reply", logon::fuzz_reply),
    ("proc_status", proc_status),
    ("proc_fdinfo", proc_fdinfo),
    ("proc_id_map", proc_id_map),
    ("x_authority", desktop::x11::fuzz_authority),
    ("desktop_record", desktop::fuzz_record),
];

/// The argument vector of the trampoline: strings, each ended by a NUL byte.
fn trampoline_spec(data: &[u8]) {
    let arguments: Vec<CString> = data
        .split(|byte| *byte == 0)
        .map(|string| CString::new(string).expect("it was split at every NUL"))
        .collect();
    if let Some((spec, program)) = Spec::decode(&arguments) {
        let again = spec.encode();
        assert_eq!(
            Spec::decode(&[again.as_slice(), &arguments[program..]].concat()),
            Some((spec, again.len()))
        );
    }
}

fn trampoline_report(data: &[u8]) {
    let Ok(bytes) = data.try_into() else { return };
    if let Some(report) = Report::decode(bytes) {
        assert_eq!(report.encode(), bytes);
    }
}

fn proc_status(data: &[u8]) {
    if let Some(status) = proc::parse_status(data) {
        // A key that stands there twice is refused, whatever else the text holds.
        let twice = [data, b"\nUid:\t0\t0\t0\t0\n"].concat();
        assert_eq!(proc::parse_status(&twice), None, "{status:?}");
    }
}

fn proc_fdinfo(data: &[u8]) {
    for key in [b"Pid".as_slice(), b"pos", b"mnt_id", b"NSpid"] {
        let _ = proc::parse_fdinfo(data, key);
    }
}

fn proc_id_map(data: &[u8]) {
    let _ = (proc::maps_every_id(data), proc::parse_number(data));
}
