//! Window stations and desktops as objects of the system: opened, read, changed.
//!
//! OpenWindowStation reaches only the session of the process, OpenDesktop only its window station, and
//! SetProcessWindowStation would change the whole server: what is elsewhere is for the
//! [helper](super::helper).

use std::io;
use std::os::windows::io::BorrowedHandle;

use windows_sys::Win32::System::RemoteDesktop::ProcessIdToSessionId;
use windows_sys::Win32::System::StationsAndDesktops::{
    CloseDesktop, CloseWindowStation, GetProcessWindowStation, GetUserObjectInformationW, HDESK, HWINSTA,
    OpenDesktopW, OpenWindowStationW, SetProcessWindowStation, UOI_NAME,
};
use windows_sys::Win32::System::Threading::GetCurrentProcessId;

use super::work::{Change, Entry, Lists, Names, Object, Refusal};
use crate::sys::dacl::Descriptor;
use crate::sys::wide::{narrow, wide};

const READ_CONTROL: u32 = 0x0002_0000;
const WRITE_DAC: u32 = 0x0004_0000;

/// A window station that was opened.
#[derive(Debug)]
struct Station(HWINSTA);

impl Station {
    fn open(name: &str, access: u32) -> io::Result<Self> {
        let name = wide(name).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the name ends with NUL; the handle is not inheritable.
        let raw = unsafe { OpenWindowStationW(name.as_ptr(), 0, access) };
        if raw.is_null() { Err(io::Error::last_os_error()) } else { Ok(Self(raw)) }
    }

    fn handle(&self) -> BorrowedHandle<'_> {
        // SAFETY: the handle is open for as long as `self`, which the result borrows.
        unsafe { BorrowedHandle::borrow_raw(self.0) }
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        // SAFETY: it came from OpenWindowStationW, and is not used after this.
        unsafe { CloseWindowStation(self.0) };
    }
}

/// A desktop that was opened.
#[derive(Debug)]
struct Opened(HDESK);

impl Opened {
    /// Of the process's own window station.
    fn open(name: &str, access: u32) -> io::Result<Self> {
        let name = wide(name).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the name ends with NUL; the handle is not inheritable.
        let raw = unsafe { OpenDesktopW(name.as_ptr(), 0, 0, access) };
        if raw.is_null() { Err(io::Error::last_os_error()) } else { Ok(Self(raw)) }
    }

    fn handle(&self) -> BorrowedHandle<'_> {
        // SAFETY: the handle is open for as long as `self`, which the result borrows.
        unsafe { BorrowedHandle::borrow_raw(self.0) }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: it came from OpenDesktopW, and is not used after this.
        unsafe { CloseDesktop(self.0) };
    }
}

/// The session that this process is in.
pub(super) fn own_session() -> io::Result<u32> {
    let mut session = 0;
    // SAFETY: `session` is written only by this call; the other takes nothing and gives a number.
    let done = unsafe { ProcessIdToSessionId(GetCurrentProcessId(), &raw mut session) };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(session) }
}

/// Whether the process's window station has this name.
pub(super) fn is_own_station(name: &str) -> bool {
    let mut units = [0_u16; 256];
    let mut needed = 0;
    // SAFETY: the handle is the process's own and is never closed; the buffer is as long as is said.
    let done = unsafe {
        let size = u32::try_from(size_of_val(&units)).unwrap_or(0);
        GetUserObjectInformationW(
            GetProcessWindowStation(),
            UOI_NAME,
            units.as_mut_ptr().cast(),
            size,
            &raw mut needed,
        )
    };
    done != 0 && narrow(&units).to_str().is_some_and(|own| own.eq_ignore_ascii_case(name))
}

/// Makes this window station the process's: only for a process that does nothing else.
pub(super) fn enter_station(name: &str) -> io::Result<()> {
    let station = Station::open(name, READ_CONTROL)?;
    // SAFETY: the handle is open, and stays so: it is not closed below.
    if unsafe { SetProcessWindowStation(station.0) } == 0 {
        return Err(io::Error::last_os_error());
    }
    std::mem::forget(station);
    Ok(())
}

/// Opens both and does it, in this process's own window station.
pub(super) fn work(names: &Names, change: Change, entries: &[Entry]) -> Result<Lists, Refusal> {
    let access = if change == Change::Read { READ_CONTROL } else { READ_CONTROL | WRITE_DAC };
    let refused = |object| move |source| Refusal { object, source };
    let station = Station::open(&names.station, access).map_err(refused(Object::Station))?;
    let desktop = Opened::open(&names.desktop, access).map_err(refused(Object::Desktop))?;
    let handle = |object| match object {
        Object::Station => station.handle(),
        Object::Desktop => desktop.handle(),
    };
    for entry in entries {
        let done = match change {
            Change::Read => Ok(()),
            Change::Add => Descriptor::add(handle(entry.object), &entry.ace),
            Change::Remove => Descriptor::remove(handle(entry.object), &entry.ace),
        };
        done.map_err(refused(entry.object))?;
    }
    let list = |object| Descriptor::of(handle(object)).map(|found| found.dacl).map_err(refused(object));
    Ok(Lists { station: list(Object::Station)?, desktop: list(Object::Desktop)? })
}
