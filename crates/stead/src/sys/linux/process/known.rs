//! What the server can tell the trampoline of what its child inherits.
//!
//! Two of the process defaults can only be read from `/proc`, and opening a file there for a process that
//! has just begun costs more than all other defaults together. The server keeps its own two files open and
//! reads them before each launch. Where it cannot, the trampoline does.
#![forbid(unsafe_code)]

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Whether no child of this process can have an out-of-memory score below 0.
static LEAST_SCORE_IS_ZERO: AtomicBool = AtomicBool::new(false);

/// A child has tried that. Only who has CAP_SYS_RESOURCE gives this process another least score, and its score with it.
pub(super) fn least_score_is_zero() {
    LEAST_SCORE_IS_ZERO.store(true, Ordering::Relaxed);
}

/// From now on exactly these signals are ignored, the first in the lowest bit: this process has one thread, whose code is
/// the library's. Any other thread could ignore one for a moment (system(3) does), and the child would inherit it.
pub(crate) fn only_ignores(signals: u64) {
    let _ = IGNORED_SIGNALS.set(signals);
}

/// What is known now.
pub(super) fn known() -> Known {
    let ignored_signals = IGNORED_SIGNALS.get().copied();
    let process = std::process::id();
    let files = || FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = files().clone();
    let found = kept.and_then(|kept| kept.read(process)).or_else(|| {
        let opened = Files::open()?;
        files().clone_from(&Some(Arc::clone(&opened)));
        opened.read(process)
    });
    Known { ignored_signals, ..found.unwrap_or_default() }
}

impl Files {
    fn open() -> Option<Arc<Self>> {
        let oom_score_adj = KeptFile::open("/proc/self/oom_score_adj").ok()?;
        let core_filter = KeptFile::open("/proc/self/coredump_filter").ok()?;
        Some(Arc::new(Self { oom_score_adj, core_filter }))
    }

    /// What both say of this process; `None` where one of them is no longer its file.
    fn read(&self, process: u32) -> Option<Known> {
        let says = |file: &KeptFile, text: &[u8]| {
            let mut found = [0; 24];
            let read = file.get_in(process)?.read_at(&mut found, 0);
            Some(matches!(read, Ok(length) if &found[..length] == text))
        };
        Some(Known {
            oom_score_adj_is_zero: says(&self.oom_score_adj, b"0\n")?
                && LEAST_SCORE_IS_ZERO.load(Ordering::Relaxed),
            core_filter_is_default: says(&self.core_filter, b"00000033\n")?,
            ignored_signals: None,
        })
    }
}
