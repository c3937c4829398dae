//! Every decoder of the library as a function of bytes, for fuzzers and property tests.
//!
//! Each may refuse its input, never panic; what it takes must be written again as the same bytes where the
//! format has but one way to write it.
#![forbid(unsafe_code)]

use std::ffi::CString;

use stead_trampoline::report::Report;
use stead_trampoline::spec::Spec;

use super::{desktop, logon, proc};
use crate::sys::dacl::{AceKind, Dacl, Descriptor};
use crate::sys::sid::Sid;

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
    ("x_replies", desktop::x11::fuzz_replies),
    ("desktop_record", desktop::fuzz_record),
    ("access_list", desktop::fuzz_access_list),
    ("proc_stat", proc_stat),
    ("proc_smaps", logon::fuzz_mappings),
    ("sid", sid),
    ("security_descriptor", security_descriptor),
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

/// `stat` and `status` of a process: the name in it is the process's own to choose.
fn proc_stat(data: &[u8]) {
    if let Some(start) = proc::parse_start_time(data) {
        // Whatever the name, it ends before the last parenthesis.
        let end = data.iter().rposition(|byte| *byte == b')').expect("it was found");
        let named = [b"1 (a) R 1 1 (", &data[end..]].concat();
        assert_eq!(proc::parse_start_time(&named), Some(start));
    }
    if let Some(parent) = proc::parse_parent(data) {
        assert!(parent >= 0);
        assert_eq!(proc::parse_parent(&[data, b"\nPPid:\t1\n"].concat()), None);
    }
}

/// A SID as bytes and as text: both have but one form for each.
fn sid(data: &[u8]) {
    if let Some(sid) = Sid::from_bytes(data) {
        assert!(data.starts_with(sid.as_bytes()));
        assert_eq!(sid.to_string().parse::<Sid>().ok(), Some(sid));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(sid) = text.parse::<Sid>() {
        assert_eq!(sid.to_string(), text);
        assert_eq!(Sid::from_bytes(sid.as_bytes()), Some(sid));
    }
}

/// A security descriptor of Windows, and an access control list by itself.
fn security_descriptor(data: &[u8]) {
    if let Ok(list) = Dacl::parse(data)
        && let Ok(again) = list.to_bytes()
    {
        assert_eq!(Dacl::parse(&again).ok().as_ref(), Some(&list));
    }
    let Ok(descriptor) = Descriptor::parse(data) else { return };
    if let Some(list) = &descriptor.dacl {
        // Nobody is allowed what no entry allows.
        let sids: Vec<Sid> = list.entries().iter().filter_map(|ace| ace.sid().copied()).collect();
        assert_eq!(list.allowed(&[]), 0);
        let most = list.entries().iter().any(|ace| ace.kind() == AceKind::Allow);
        assert!(list.allowed(&sids) == 0 || most, "{list}");
        let _ = (list.to_string(), list.is_canonical());
    }
    if let Ok(again) = descriptor.to_bytes(true) {
        assert_eq!(Descriptor::parse(&again).ok(), Some(descriptor));
    }
}
