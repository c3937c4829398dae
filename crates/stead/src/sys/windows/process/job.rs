//! The job object that holds a process and all that descends from it.

use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle, RawHandle};
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::ERROR_MORE_DATA;
use windows_sys::Win32::System::JobObjects::{
    CreateJobObjectW, JOB_OBJECT_LIMIT_ACTIVE_PROCESS, JOB_OBJECT_LIMIT_JOB_MEMORY,
    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, JOB_OBJECT_LIMIT_PROCESS_MEMORY, JOBOBJECT_ASSOCIATE_COMPLETION_PORT,
    JOBOBJECT_BASIC_ACCOUNTING_INFORMATION, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
    JobObjectAssociateCompletionPortInformation, JobObjectBasicAccountingInformation,
    JobObjectBasicProcessIdList, JobObjectExtendedLimitInformation, QueryInformationJobObject,
    SetInformationJobObject, TerminateJobObject,
};

/// What a process and its descendants may use together.
///
/// Reference: [JOBOBJECT_EXTENDED_LIMIT_INFORMATION](https://learn.microsoft.com/windows/win32/api/winnt/ns-winnt-jobobject_extended_limit_information).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[doc(alias = "JOBOBJECT_EXTENDED_LIMIT_INFORMATION")]
#[non_exhaustive]
pub struct JobLimits {
    /// How many processes at once.
    pub processes: Option<u32>,
    /// Committed memory of each process, in bytes.
    pub process_memory: Option<usize>,
    /// Committed memory of all together, in bytes.
    pub memory: Option<usize>,
}

/// How often a list that grows while it is asked for is asked for.
const TRIES: usize = 64;

/// One job, whose handle nobody inherits.
#[derive(Debug)]
pub(crate) struct Job(OwnedHandle);

impl Job {
    /// A job with these limits, read back.
    pub(crate) fn new(limits: JobLimits, kill_on_close: bool) -> io::Result<Self> {
        // SAFETY: no attributes and no name are given: the handle is not inheritable and nobody else's.
        let raw = unsafe { CreateJobObjectW(null(), null()) };
        if raw.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so the handle is new.
        let job = Self(unsafe { OwnedHandle::from_raw_handle(raw) });
        let mut wanted = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        let flags = &mut wanted.BasicLimitInformation.LimitFlags;
        if kill_on_close {
            *flags |= JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
        }
        if let Some(processes) = limits.processes {
            *flags |= JOB_OBJECT_LIMIT_ACTIVE_PROCESS;
            wanted.BasicLimitInformation.ActiveProcessLimit = processes;
        }
        if let Some(bytes) = limits.process_memory {
            wanted.BasicLimitInformation.LimitFlags |= JOB_OBJECT_LIMIT_PROCESS_MEMORY;
            wanted.ProcessMemoryLimit = bytes;
        }
        if let Some(bytes) = limits.memory {
            wanted.BasicLimitInformation.LimitFlags |= JOB_OBJECT_LIMIT_JOB_MEMORY;
            wanted.JobMemoryLimit = bytes;
        }
        if wanted.BasicLimitInformation.LimitFlags != 0 {
            // SAFETY: the structure is what this class takes, and as long as is said.
            let done = unsafe {
                SetInformationJobObject(
                    job.raw(),
                    JobObjectExtendedLimitInformation,
                    (&raw const wanted).cast(),
                    size(&wanted),
                )
            };
            if done == 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(job)
    }

    pub(crate) fn raw(&self) -> RawHandle {
        self.0.as_raw_handle()
    }

    /// One more handle to the same job.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Has the system tell a completion port, under this key, what happens in the job.
    pub(super) fn tell(&self, port: RawHandle, key: usize) -> io::Result<()> {
        let wanted = JOBOBJECT_ASSOCIATE_COMPLETION_PORT {
            CompletionKey: std::ptr::without_provenance_mut(key),
            CompletionPort: port,
        };
        // SAFETY: the structure is what this class takes, and as long as is said; the port is open.
        let done = unsafe {
            SetInformationJobObject(
                self.raw(),
                JobObjectAssociateCompletionPortInformation,
                (&raw const wanted).cast(),
                size(&wanted),
            )
        };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// How many processes of it there are now.
    pub(crate) fn processes(&self) -> io::Result<u32> {
        let mut answer = JOBOBJECT_BASIC_ACCOUNTING_INFORMATION::default();
        let length = size(&answer);
        // SAFETY: the buffer is what this class fills, writable and as long as is said.
        let done = unsafe {
            QueryInformationJobObject(
                self.raw(),
                JobObjectBasicAccountingInformation,
                (&raw mut answer).cast(),
                length,
                null_mut(),
            )
        };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(answer.ActiveProcesses) }
    }

    /// The ids of its processes now.
    pub(crate) fn process_ids(&self) -> io::Result<Vec<u32>> {
        // JOBOBJECT_BASIC_PROCESS_ID_LIST: two counts of 32 bits, then as many ids, of pointer size each.
        const COUNTS: usize = 8 / size_of::<usize>();
        let mut room = 64;
        for _ in 0..TRIES {
            let mut words = vec![0_usize; COUNTS + room];
            // SAFETY: the buffer is aligned for what this class fills, writable and as long as is said.
            let done = unsafe {
                QueryInformationJobObject(
                    self.raw(),
                    JobObjectBasicProcessIdList,
                    words.as_mut_ptr().cast(),
                    u32::try_from(size_of_val(words.as_slice())).unwrap_or(0),
                    null_mut(),
                )
            };
            let error = io::Error::last_os_error();
            if done == 0 && error.raw_os_error() != Some(ERROR_MORE_DATA.cast_signed()) {
                return Err(error);
            }
            let counts: Vec<u8> = words[..COUNTS].iter().flat_map(|word| word.to_ne_bytes()).collect();
            let count = |at: usize| -> usize {
                let bytes = counts.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                bytes.map_or(0, |bytes| u32::from_ne_bytes(bytes) as usize)
            };
            let (assigned, listed) = (count(0), count(4).min(room));
            if done != 0 && listed >= assigned.min(room) && assigned <= room {
                return Ok(words[COUNTS..][..listed]
                    .iter()
                    .filter_map(|id| u32::try_from(*id).ok())
                    .collect());
            }
            room = assigned.max(room) + 64;
        }
        Err(io::Error::other("the list of its processes does not come to rest"))
    }

    /// Ends every process of it.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        // SAFETY: the handle is open, and has all rights to the job.
        let done = unsafe { TerminateJobObject(self.raw(), super::running::KILLED) };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn size<T>(value: &T) -> u32 {
    u32::try_from(size_of_val(value)).unwrap_or(0)
}
