//! A window station and a desktop of a test's own, and who gets at them, asked without the library under test.

use super::Seen;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use windows_sys::Win32::Foundation::{HANDLE, LocalFree};
use windows_sys::Win32::Security::Authorization::{
    ConvertSecurityDescriptorToStringSecurityDescriptorW,
    ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
};
use windows_sys::Win32::Security::{
    DACL_SECURITY_INFORMATION, GetKernelObjectSecurity, InitializeSecurityDescriptor, PSECURITY_DESCRIPTOR,
    SECURITY_DESCRIPTOR, SetKernelObjectSecurity, SetSecurityDescriptorDacl,
};
use windows_sys::Win32::System::StationsAndDesktops::{
    CloseDesktop, CloseWindowStation, CreateDesktopW, CreateWindowStationW, GetProcessWindowStation,
    GetThreadDesktop, GetUserObjectInformationW, HDESK, HWINSTA, OpenDesktopW, OpenWindowStationW,
    SetProcessWindowStation, UOI_NAME,
};
use windows_sys::Win32::System::SystemServices::SECURITY_DESCRIPTOR_REVISION;
use windows_sys::Win32::System::Threading::GetCurrentThreadId;

/// WINSTA_ALL_ACCESS and the standard rights.
const ALL_OF_STATION: u32 = 0x000f_037f;
/// Every right of a desktop.
const ALL_OF_DESKTOP: u32 = 0x000f_01ff;

/// A window station with a desktop, for the process's own user and for the system.
pub struct Stage {
    name: String,
    station: HWINSTA,
    desktop: HDESK,
}

impl Stage {
    /// A fresh one, which is this process's window station from then on.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn entered() -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("stead-test-{}-{number}", std::process::id());
        let wide = wide(&name);
        // SAFETY: the names end with zeros; the handles are used as long as this value lives.
        unsafe {
            let station = CreateWindowStationW(wide.as_ptr(), 0, ALL_OF_STATION, ptr::null());
            if station.is_null() {
                return Err(io::Error::last_os_error());
            }
            if SetProcessWindowStation(station) == 0 {
                return Err(io::Error::last_os_error());
            }
            let work = self::wide("work");
            let desktop =
                CreateDesktopW(work.as_ptr(), ptr::null(), ptr::null(), 0, ALL_OF_DESKTOP, ptr::null());
            if desktop.is_null() {
                return Err(io::Error::last_os_error());
            }
            let stage = Self { name, station, desktop };
            let own = Seen::own()?.user;
            stage.set(
                &format!("D:(A;;0xf037f;;;{own})(A;;0xf037f;;;SY)"),
                &format!("D:(A;;0xf01ff;;;{own})(A;;0xf01ff;;;SY)"),
            )?;
            Ok(stage)
        }
    }

    /// The same, while this process stays in the window station that it is in.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn elsewhere() -> io::Result<Self> {
        // SAFETY: the process's own handle, which nobody closes.
        unsafe {
            let own = GetProcessWindowStation();
            let stage = Self::entered()?;
            if SetProcessWindowStation(own) == 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(stage)
        }
    }

    /// Makes the window station of this name (`station\desktop`) the process's.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn enter(name: &str) -> io::Result<()> {
        let station = name.split('\\').next().unwrap_or_default();
        // SAFETY: the name ends with a zero; the handle stays open as long as the process.
        unsafe {
            let station = OpenWindowStationW(wide(station).as_ptr(), 0, ALL_OF_STATION);
            if station.is_null() || SetProcessWindowStation(station) == 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// `station\desktop`.
    pub fn name(&self) -> String {
        format!(r"{}\work", self.name)
    }

    /// Puts these lists on them, in SDDL.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set(&self, station: &str, desktop: &str) -> io::Result<()> {
        set(self.station, station)?;
        set(self.desktop, desktop)
    }

    /// Takes both lists away: everybody may do everything then.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_none(&self) -> io::Result<()> {
        let mut descriptor = SECURITY_DESCRIPTOR::default();
        let pointer: PSECURITY_DESCRIPTOR = (&raw mut descriptor).cast();
        // SAFETY: the descriptor lives until the calls return; a list that is present and null is none.
        let done = unsafe {
            InitializeSecurityDescriptor(pointer, SECURITY_DESCRIPTOR_REVISION) != 0
                && SetSecurityDescriptorDacl(pointer, 1, ptr::null(), 0) != 0
                && SetKernelObjectSecurity(self.station, DACL_SECURITY_INFORMATION, pointer) != 0
                && SetKernelObjectSecurity(self.desktop, DACL_SECURITY_INFORMATION, pointer) != 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Their lists, in SDDL.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn lists(&self) -> io::Result<(String, String)> {
        Ok((list(self.station)?, list(self.desktop)?))
    }

    /// Opens the window station as whoever this thread is, with these rights.
    ///
    /// # Errors
    ///
    /// The system's: 5 for those whom its list does not name.
    pub fn open_station(&self, rights: u32) -> io::Result<()> {
        // SAFETY: the name ends with a zero; what was opened is closed once.
        unsafe {
            let station = OpenWindowStationW(wide(&self.name).as_ptr(), 0, rights);
            if station.is_null() {
                return Err(io::Error::last_os_error());
            }
            CloseWindowStation(station);
        }
        Ok(())
    }

    /// Opens both as whoever this thread is, with these rights; the process must be in the window station.
    ///
    /// # Errors
    ///
    /// The system's: 5 for those whom a list does not name.
    pub fn open(&self, of_station: u32, of_desktop: u32) -> io::Result<()> {
        self.open_station(of_station)?;
        // SAFETY: the name ends with a zero; what was opened is closed once.
        unsafe {
            let desktop = OpenDesktopW(wide("work").as_ptr(), 0, 0, of_desktop);
            if desktop.is_null() {
                return Err(io::Error::last_os_error());
            }
            CloseDesktop(desktop);
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // SAFETY: both are open, and not used after this. The process's own window station cannot be closed: the
        // system says so.
        unsafe {
            CloseDesktop(self.desktop);
            CloseWindowStation(self.station);
        }
    }
}

/// The names of this process's window station and of this thread's desktop.
pub(super) fn own() -> io::Result<String> {
    let name = |object: HANDLE| {
        let mut units = [0_u16; 256];
        let mut length = 0;
        // SAFETY: the handle is the process's or the thread's own; the buffer is as long as is said.
        let done = unsafe {
            let size = super::length_of::<[u16; 256]>();
            GetUserObjectInformationW(object, UOI_NAME, units.as_mut_ptr().cast(), size, &raw mut length)
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned())
    };
    // SAFETY: the calls take nothing but the thread's own number.
    let (station, desktop) = unsafe { (GetProcessWindowStation(), GetThreadDesktop(GetCurrentThreadId())) };
    Ok(format!(r"{}\{}", name(station)?, name(desktop)?))
}

fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

fn set(object: HANDLE, sddl: &str) -> io::Result<()> {
    let mut descriptor: PSECURITY_DESCRIPTOR = ptr::null_mut();
    // SAFETY: the text ends with a zero; what the system makes of it is freed once.
    unsafe {
        let sddl = wide(sddl);
        if ConvertStringSecurityDescriptorToSecurityDescriptorW(
            sddl.as_ptr(),
            SDDL_REVISION_1,
            &raw mut descriptor,
            ptr::null_mut(),
        ) == 0
        {
            return Err(io::Error::last_os_error());
        }
        let done = SetKernelObjectSecurity(object, DACL_SECURITY_INFORMATION, descriptor);
        let error = io::Error::last_os_error();
        LocalFree(descriptor);
        if done == 0 { Err(error) } else { Ok(()) }
    }
}

fn list(object: HANDLE) -> io::Result<String> {
    // Of `u64`s, so that the structure in it is aligned.
    let mut buffer = vec![0_u64; 8192];
    let mut text = ptr::null_mut();
    // SAFETY: the buffer is as long as is said; the system's text ends with a zero, and is freed once.
    unsafe {
        let mut length = 0;
        let size = super::length_of::<[u64; 8192]>();
        let descriptor: PSECURITY_DESCRIPTOR = buffer.as_mut_ptr().cast();
        if GetKernelObjectSecurity(object, DACL_SECURITY_INFORMATION, descriptor, size, &raw mut length) == 0
            || ConvertSecurityDescriptorToStringSecurityDescriptorW(
                descriptor,
                SDDL_REVISION_1,
                DACL_SECURITY_INFORMATION,
                &raw mut text,
                ptr::null_mut(),
            ) == 0
        {
            return Err(io::Error::last_os_error());
        }
        let string = super::report::text(text);
        LocalFree(text.cast());
        Ok(string)
    }
}
