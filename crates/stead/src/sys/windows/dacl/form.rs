//! Security descriptors in their self-relative form: pure code, the same on every platform.
#![forbid(unsafe_code)]

use std::io;

use super::{Dacl, invalid, u16_at, u32_at};
use crate::sys::sid::Sid;

/// Revision 1, self-relative, and a DACL that is there.
const REVISION: u8 = 1;
const SE_DACL_PRESENT: u16 = 0x0004;
pub(super) const SE_DACL_PROTECTED: u16 = 0x1000;
const SE_SELF_RELATIVE: u16 = 0x8000;
const DESCRIPTOR_HEADER: usize = 20;

/// An owner and a DACL, as they are on an object or are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) owner: Option<Sid>,
    /// `None` where there is no list at all: then everybody may do everything.
    pub(crate) dacl: Option<Dacl>,
}

impl Descriptor {
    /// Its bytes, self-relative; `protected` from what an object's parent would have it inherit.
    pub(crate) fn to_bytes(&self, protected: bool) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; DESCRIPTOR_HEADER];
        bytes[0] = REVISION;
        let mut control = SE_SELF_RELATIVE;
        if let Some(owner) = &self.owner {
            let offset = offset(&bytes)?;
            bytes[4..8].copy_from_slice(&offset);
            bytes.extend_from_slice(owner.as_bytes());
        }
        if let Some(dacl) = &self.dacl {
            control |= SE_DACL_PRESENT | if protected { SE_DACL_PROTECTED } else { 0 };
            let offset = offset(&bytes)?;
            bytes[16..20].copy_from_slice(&offset);
            bytes.extend(dacl.to_bytes()?);
        }
        bytes[2..4].copy_from_slice(&control.to_le_bytes());
        Ok(bytes)
    }

    /// The descriptor at the beginning of `bytes`.
    pub(crate) fn parse(bytes: &[u8]) -> io::Result<Self> {
        let control = u16_at(bytes, 2)?;
        let part = |at: usize| -> io::Result<Option<&[u8]>> {
            match u32_at(bytes, at)? as usize {
                0 => Ok(None),
                offset => bytes.get(offset..).map(Some).ok_or_else(|| invalid("an offset leads outside")),
            }
        };
        let owner = part(4)?
            .map(|bytes| Sid::from_bytes(bytes).ok_or_else(|| invalid("the owner's SID is none")))
            .transpose()?;
        let dacl = match part(16)? {
            Some(bytes) if control & SE_DACL_PRESENT != 0 => Some(Dacl::parse(bytes)?),
            _ => None,
        };
        Ok(Self { owner, dacl })
    }
}

fn offset(bytes: &[u8]) -> io::Result<[u8; 4]> {
    u32::try_from(bytes.len()).map(u32::to_le_bytes).map_err(|_| invalid("the descriptor is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Sid {
        "S-1-5-21-1-2-3-1000".parse().unwrap()
    }

    fn bytes(descriptor: &Descriptor) -> Vec<u8> {
        descriptor.to_bytes(true).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for everyone in [false, true] {
            let whole = Descriptor { owner: Some(user()), dacl: Some(Dacl::of_pipe(&user(), everyone)) };
            assert_eq!(Descriptor::parse(&bytes(&whole)).unwrap(), whole);
        }
        let none = Descriptor { owner: None, dacl: None };
        assert_eq!(Descriptor::parse(&bytes(&none)).unwrap(), none);
        let nobody = Descriptor { owner: None, dacl: Some(Dacl::default()) };
        assert_eq!(Descriptor::parse(&bytes(&nobody)).unwrap(), nobody, "an empty list is not no list");
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        let whole = Descriptor { owner: Some(user()), dacl: Some(Dacl::of_pipe(&user(), true)) };
        let bytes = bytes(&whole);
        for end in 0..bytes.len() {
            let _ = Descriptor::parse(&bytes[..end]);
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = Descriptor::parse(&changed);
            }
        }
    }
}
