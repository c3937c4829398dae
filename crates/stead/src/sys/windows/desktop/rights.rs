//! The rights to window stations and desktops: the fewest with which a program shows its windows.
//!
//! Reference: [Window Station Security and Access Rights](https://learn.microsoft.com/windows/win32/winstation/window-station-security-and-access-rights),
//! [Desktop Security and Access Rights](https://learn.microsoft.com/windows/win32/winstation/desktop-security-and-access-rights).
#![forbid(unsafe_code)]

use std::fmt;

const READ_CONTROL: u32 = 0x0002_0000;

/// The rights of a window station, by their names in winuser.h.
pub(super) const OF_STATION: [(u32, &str); 14] = [
    (0x1, "WINSTA_ENUMDESKTOPS"),
    (0x2, "WINSTA_READATTRIBUTES"),
    (0x4, "WINSTA_ACCESSCLIPBOARD"),
    (0x8, "WINSTA_CREATEDESKTOP"),
    (0x10, "WINSTA_WRITEATTRIBUTES"),
    (0x20, "WINSTA_ACCESSGLOBALATOMS"),
    (0x40, "WINSTA_EXITWINDOWS"),
    (0x100, "WINSTA_ENUMERATE"),
    (0x200, "WINSTA_READSCREEN"),
    (0x0001_0000, "DELETE"),
    (READ_CONTROL, "READ_CONTROL"),
    (0x0004_0000, "WRITE_DAC"),
    (0x0008_0000, "WRITE_OWNER"),
    (0x1000_0000, "GENERIC_ALL"),
];

/// The rights of a desktop.
pub(super) const OF_DESKTOP: [(u32, &str); 14] = [
    (0x1, "DESKTOP_READOBJECTS"),
    (0x2, "DESKTOP_CREATEWINDOW"),
    (0x4, "DESKTOP_CREATEMENU"),
    (0x8, "DESKTOP_HOOKCONTROL"),
    (0x10, "DESKTOP_JOURNALRECORD"),
    (0x20, "DESKTOP_JOURNALPLAYBACK"),
    (0x40, "DESKTOP_ENUMERATE"),
    (0x80, "DESKTOP_WRITEOBJECTS"),
    (0x100, "DESKTOP_SWITCHDESKTOP"),
    (0x0001_0000, "DELETE"),
    (READ_CONTROL, "READ_CONTROL"),
    (0x0004_0000, "WRITE_DAC"),
    (0x0008_0000, "WRITE_OWNER"),
    (0x1000_0000, "GENERIC_ALL"),
];

/// ENUMDESKTOPS, READATTRIBUTES, ACCESSGLOBALATOMS, ENUMERATE, READ_CONTROL.
const LEAST_OF_STATION: u32 = 0x1 | 0x2 | 0x20 | 0x100 | READ_CONTROL;
/// READOBJECTS, WRITEOBJECTS, CREATEWINDOW, CREATEMENU, ENUMERATE, READ_CONTROL.
const LEAST_OF_DESKTOP: u32 = 0x1 | 0x80 | 0x2 | 0x4 | 0x40 | READ_CONTROL;

/// A right to a desktop that a process gets only if its server says so.
///
/// The right to change the access lists (`WRITE_DAC`, `WRITE_OWNER`) is not among them: what it allows could not be
/// taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DesktopRight {
    /// To hook into what other programs on the desktop receive (`DESKTOP_HOOKCONTROL`).
    Hooks,
    /// To record and play what is typed (`DESKTOP_JOURNALRECORD`, `DESKTOP_JOURNALPLAYBACK`).
    Journal,
    /// To read what is on the screen (`WINSTA_READSCREEN`).
    Screen,
    /// To use the clipboard (`WINSTA_ACCESSCLIPBOARD`).
    Clipboard,
    /// To bring another desktop to the front (`DESKTOP_SWITCHDESKTOP`).
    Switch,
}

/// What is asked for on each of the two objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Rights {
    pub(super) station: u32,
    pub(super) desktop: u32,
}

impl Default for Rights {
    fn default() -> Self {
        Self { station: LEAST_OF_STATION, desktop: LEAST_OF_DESKTOP }
    }
}

impl Rights {
    /// One more.
    pub(crate) fn with(mut self, right: DesktopRight) -> Self {
        match right {
            DesktopRight::Hooks => self.desktop |= 0x8,
            DesktopRight::Journal => self.desktop |= 0x10 | 0x20,
            DesktopRight::Screen => self.station |= 0x200,
            DesktopRight::Clipboard => self.station |= 0x4,
            DesktopRight::Switch => self.desktop |= 0x100,
        }
        self
    }
}

/// A mask in words; what has none, as a number.
pub(super) struct Named(pub(super) u32, pub(super) &'static [(u32, &'static str)]);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut separator = "";
        for (bit, name) in self.1 {
            if rest & bit != 0 {
                write!(f, "{separator}{name}")?;
                rest &= !bit;
                separator = " | ";
            }
        }
        if rest != 0 || self.0 == 0 {
            write!(f, "{separator}{rest:#x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_could_not_be_taken_back_is_ever_asked_for() {
        let all = [
            DesktopRight::Hooks,
            DesktopRight::Journal,
            DesktopRight::Screen,
            DesktopRight::Clipboard,
            DesktopRight::Switch,
        ];
        let most = all.into_iter().fold(Rights::default(), Rights::with);
        // DELETE, WRITE_DAC, WRITE_OWNER, the generic ones; CREATEDESKTOP, WRITEATTRIBUTES, EXITWINDOWS.
        assert_eq!(most.station & 0xff0d_0058, 0);
        assert_eq!(most.desktop & 0xff0d_0000, 0);
        assert_eq!(Rights::default().station, 0x0002_0123);
        assert_eq!(Rights::default().desktop, 0x0002_00c7);
    }

    #[test]
    fn a_mask_is_printed_in_the_systems_words() {
        assert_eq!(Named(0x0002_0001, &OF_STATION).to_string(), "WINSTA_ENUMDESKTOPS | READ_CONTROL");
        assert_eq!(Named(0x8000_0002, &OF_DESKTOP).to_string(), "DESKTOP_CREATEWINDOW | 0x80000000");
        assert_eq!(Named(0, &OF_DESKTOP).to_string(), "0x0");
    }
}
