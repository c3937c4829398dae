//! Arguments and environments that are longer than a message: read out of memory files of callers'.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use stead::error::ProgramFault;
use stead_protocol::frame::Malformed;
use stead_protocol::{CreateProcess, Failure, FailureKind, LARGEST_STRINGS, Strings, name_of};

use crate::serve::failure::{invalid, system};

const DOING: &str = "reading the arguments and the environment of a new process";

/// Puts into the call what the memory file beside it holds.
pub(super) fn read_into(call: &mut CreateProcess, descriptor: BorrowedFd<'_>) -> Result<(), Failure> {
    // Only a memory file has them all (fcntl(2)): it is read without waiting, and is as long as it says.
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    if !fcntl_get_seals(descriptor).is_ok_and(|found| found.contains(seals)) {
        let what = "they are passed in a memory file that is sealed: against shrinking, growing and writing";
        return Err(invalid(DOING, what));
    }
    let length = fstat(descriptor).map_err(|errno| system(DOING, "fstat", errno))?.st_size;
    let length = usize::try_from(length).ok().filter(|length| *length <= LARGEST_STRINGS);
    let mut bytes = vec![0; length.ok_or_else(|| too_long(call))?];
    let own = descriptor.try_clone_to_owned().map_err(|error| system(DOING, "fcntl", error))?;
    File::from(own).read_exact_at(&mut bytes, 0).map_err(|error| system(DOING, "read", error))?;
    let strings = Strings::decode(&bytes).map_err(|malformed| match malformed {
        Malformed::TooLong => too_long(call),
        other => invalid(DOING, other.to_string()),
    })?;
    strings.put(call).map_err(|_| invalid(DOING, "some are in the call, and some beside it"))
}

/// What the kernel would say of them.
fn too_long(call: &CreateProcess) -> Failure {
    let program =
        call.program.as_ref().map_or_else(|| "(an open file)".into(), |name| name.to_string_lossy());
    let why = name_of(ProgramFault::ArgumentsTooLong);
    FailureKind::ProgramUnusable { program: program.into_owned(), why }.while_doing(DOING)
}
