//! What the server can tell the trampoline of what its child inherits.
//!
//! Two of the process defaults can only be read from `/proc`, and opening a file there for a process that
//! has just begun costs more than all other defaults together. The server keeps its own two files open and
//! reads them before each launch. Where it cannot, the trampoline does.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use stead_trampoline::spec::Known;

/// The server's own files. They speak of the process that opened them, so not of one that was forked since.
struct Files {
    owner: u32,
    oom_score_adj: File,
    core_filter: File,
}

static FILES: Mutex<Option<Arc<Files>>> = Mutex::new(None);

/// The signals that this process ignores, where nobody can change that any more.
static IGNORED_SIGNALS: OnceLock<u64> = OnceLock::new();

/// From now on exactly these signals are ignored, the first in the lowest bit: this process has one thread, whose code is
/// the library's. Any other thread could ignore one for a moment (system(3) does), and the child would inherit it.
pub(crate) fn only_ignores(signals: u64) {
    let _ = IGNORED_SIGNALS.set(signals);
}

/// What is known now.
pub(super) fn known() -> Known {
    let ignored_signals = IGNORED_SIGNALS.get().copied();
    files().map_or(Known { ignored_signals, ..Known::default() }, |files| Known {
        oom_score_adj_is_zero: says(&files.oom_score_adj, b"0\n"),
        core_filter_is_default: says(&files.core_filter, b"00000033\n"),
        ignored_signals,
    })
}

fn files() -> Option<Arc<Files>> {
    let here = std::process::id();
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    if files.as_ref().is_none_or(|files| files.owner != here) {
        *files = File::open("/proc/self/oom_score_adj")
            .and_then(|oom_score_adj| {
                let core_filter = File::open("/proc/self/coredump_filter")?;
                Ok(Arc::new(Files { owner: here, oom_score_adj, core_filter }))
            })
            .ok();
    }
    files.clone()
}

fn says(file: &File, text: &[u8]) -> bool {
    let mut found = [0; 24];
    file.read_at(&mut found, 0).is_ok_and(|length| &found[..length] == text)
}
