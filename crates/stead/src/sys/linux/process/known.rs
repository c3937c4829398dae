//! What the server can tell the trampoline of what its child inherits.
//!
//! Two of the process defaults can only be read from `/proc`, and opening a file there for a process that
//! has just begun costs more than all other defaults together. The server keeps its own two files open and
//! reads them before each launch. Where it cannot, the trampoline does.
#![forbid(unsafe_code)]

use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use stead_trampoline::spec::Known;

use super::kept::KeptFile;

/// The server's own files.
struct Files {
    oom_score_adj: KeptFile,
    core_filter: KeptFile,
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
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let of_this_process =
        |files: &Arc<Files>| files.oom_score_adj.get().is_some() && files.core_filter.get().is_some();
    if !files.as_ref().is_some_and(of_this_process) {
        *files = KeptFile::open("/proc/self/oom_score_adj").and_then(|oom_score_adj| {
            let core_filter = KeptFile::open("/proc/self/coredump_filter")?;
            Some(Arc::new(Files { oom_score_adj, core_filter }))
        });
    }
    files.clone()
}

fn says(file: &KeptFile, text: &[u8]) -> bool {
    let mut found = [0; 24];
    let read = file.get().map(|file| file.read_at(&mut found, 0));
    matches!(read, Some(Ok(length)) if &found[..length] == text)
}
