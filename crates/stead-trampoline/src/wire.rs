//! How a spec travels: as arguments of the trampoline, read without allocation.
//!
//! No file, no pipe and no copy is needed, and nothing but the arguments of the new program is larger
//! than it would be anyway. Layout of the argument vector:
//!
//! | argument | holds |
//! |---|---|
//! | 0 | [`NAME`] |
//! | 1 | the header: numbers in a fixed order |
//! | then | the directory; the exec label where there is one |
//! | then | the kept descriptors, the groups and the limits, in pieces of numbers |
//! | then | the candidates for the program |
//! | rest | the program's own argument vector |
//!
//! A number is NUL-free: seven bits a byte, least significant first, the high bit of each byte set.
//! A u32 is five bytes, a u64 ten. One argument is at most 128 KiB (`MAX_ARG_STRLEN`), hence the pieces.

/// The trampoline's own name in the process list.
pub const NAME: &core::ffi::CStr = c"stead-trampoline";

/// Changes with every change of the layout; an installed trampoline of another version refuses.
pub const VERSION: u32 = 4;

/// Largest piece of a list of numbers, in bytes.
pub const PIECE: usize = 100 * 1024;

/// Bytes of an encoded u32.
pub const SHORT: usize = 5;
/// Bytes of an encoded u64.
pub const LONG: usize = 10;
/// Bytes of one limit: its number, the soft and the hard value.
pub const LIMIT: usize = SHORT + 2 * LONG;
/// Most groups that the kernel takes (`NGROUPS_MAX`).
pub const MOST_GROUPS: u32 = 65_536;

/// Bits of the header's flags.
pub mod flag {
    /// `gate` counts.
    pub const GATE: u32 = 1 << 0;
    /// A session of its own.
    pub const SETSID: u32 = 1 << 1;
    /// Descriptor 0 becomes the controlling terminal, or that of `ON_OUTPUT`, `ON_ERROR`.
    pub const TERMINAL: u32 = 1 << 2;
    /// Fixed process defaults.
    pub const FIXED: u32 = 1 << 3;
    /// `umask` counts.
    pub const UMASK: u32 = 1 << 4;
    /// `nice` counts.
    pub const NICE: u32 = 1 << 5;
    /// `oom_score_adj` counts.
    pub const OOM: u32 = 1 << 6;
    /// A new session keyring.
    pub const KEYRING: u32 = 1 << 7;
    /// `login_uid` counts.
    pub const LOGIN_UID: u32 = 1 << 8;
    /// The credentials count.
    pub const CREDENTIALS: u32 = 1 << 9;
    /// The process shall have no_new_privs.
    pub const NO_NEW_PRIVS: u32 = 1 << 10;
    /// An exec label follows the directory.
    pub const LABEL: u32 = 1 << 11;
    /// The program is the descriptor `descriptor`.
    pub const DESCRIPTOR: u32 = 1 << 12;
    /// The server knows that the out-of-memory score adjustment is 0, and can be no lower.
    pub const OOM_IS_ZERO: u32 = 1 << 13;
    /// The server knows that the core filter is the kernel's default.
    pub const CORE_FILTER_IS_DEFAULT: u32 = 1 << 14;
    /// The program gets a parent in its own session, so that it can be stopped from its terminal.
    pub const SUPERVISED: u32 = 1 << 15;
    /// The terminal is descriptor 1.
    pub const ON_OUTPUT: u32 = 1 << 16;
    /// The terminal is descriptor 2.
    pub const ON_ERROR: u32 = 1 << 17;
    /// A supervised program begins behind its terminal.
    pub const BEHIND: u32 = 1 << 18;
    /// Every bit that means something.
    pub const ALL: u32 = (1 << 19) - 1;
}

macro_rules! header {
    ($($(#[$doc:meta])* $name:ident: $kind:ident,)*) => {
        /// The numbers of a spec, in the order in which they travel.
        #[derive(Clone, Copy, Default, PartialEq, Eq)]
        #[allow(missing_docs)] // each is explained at the field of `Spec` that it carries
        pub struct Header {
            $(pub $name: $kind,)*
        }

        impl Header {
            /// Bytes of an encoded header.
            pub const SIZE: usize = 0 $(+ header!(@size $kind))*;

            /// The header as it travels.
            pub fn encode(&self) -> [u8; Self::SIZE] {
                let mut out = [0; Self::SIZE];
                let mut rest = &mut out[..];
                $(rest = put(rest, u64::from(self.$name), header!(@size $kind));)*
                debug_assert!(rest.is_empty());
                out
            }

            fn decode(bytes: &[u8]) -> Option<Self> {
                if bytes.len() != Self::SIZE {
                    return None;
                }
                let mut numbers = Numbers { rest: bytes };
                Some(Self { $($name: numbers.$kind()?,)* })
            }
        }
    };
    (@size u32) => { SHORT };
    (@size u64) => { LONG };
}

header! {
    version: u32, flags: u32, report: u32, gate: u32, umask: u32, nice: u32, oom_score_adj: u32,
    login_uid: u32, descriptor: u32, uid: u32, gid: u32, last_capability: u32, securebits: u32, permitted: u64, effective: u64,
    inheritable: u64, ambient: u64, bounding: u64, perhaps_ignored: u64, keep: u32, groups: u32, limits: u32,
    candidates: u32,
}

fn put(out: &mut [u8], mut value: u64, bytes: usize) -> &mut [u8] {
    let (head, rest) = out.split_at_mut(bytes);
    for byte in head {
        *byte = 0x80 | (value & 0x7f) as u8;
        value >>= 7;
    }
    rest
}

/// An encoded u32.
pub fn short(value: u32) -> [u8; SHORT] {
    let mut out = [0; SHORT];
    put(&mut out, u64::from(value), SHORT);
    out
}

/// An encoded u64.
pub fn long(value: u64) -> [u8; LONG] {
    let mut out = [0; LONG];
    put(&mut out, value, LONG);
    out
}

/// A run of encoded numbers.
#[derive(Clone, Copy)]
pub struct Numbers<'a> {
    rest: &'a [u8],
}

impl Numbers<'_> {
    fn take(&mut self, bytes: usize, bits: u32) -> Option<u64> {
        let head = self.rest.get(..bytes)?;
        let rest = self.rest.get(bytes..)?;
        let mut value: u64 = 0;
        let mut shift = 0;
        for byte in head {
            let seven = u64::from(byte & 0x7f);
            // A byte without the high bit, or bits beyond the number's width: no encoder wrote this.
            if byte & 0x80 == 0 || (bits - shift < 7 && seven >> (bits - shift) != 0) {
                return None;
            }
            value |= seven << shift;
            shift += 7;
        }
        self.rest = rest;
        Some(value)
    }

    /// The next number, a u32.
    pub fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.take(SHORT, 32)?).ok()
    }

    /// The next number, a u64.
    pub fn u64(&mut self) -> Option<u64> {
        self.take(LONG, 64)
    }
}

/// The arguments that a spec is read from: the program's are the kernel's array, the tests' are slices.
pub trait Arguments<'a>: Copy {
    /// The argument at `index`, without its final NUL.
    fn get(self, index: usize) -> Option<&'a [u8]>;
    /// How many there are.
    fn count(self) -> usize;
}

/// A list of numbers that travels in pieces.
#[derive(Clone, Copy)]
pub struct List<A> {
    arguments: A,
    next: usize,
    end: usize,
    count: u32,
}

impl<'a, A: Arguments<'a>> List<A> {
    /// How many entries it has.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Calls `each` with the numbers of one entry after the other; `None` when `each` says so, or when
    /// the pieces do not hold exactly `count` entries of `size` bytes.
    pub fn each(mut self, size: usize, mut each: impl FnMut(&mut Numbers<'a>) -> Option<()>) -> Option<()> {
        let mut seen: u32 = 0;
        while self.next < self.end {
            let mut numbers = Numbers { rest: self.arguments.get(self.next)? };
            self.next += 1;
            while !numbers.rest.is_empty() {
                if numbers.rest.len() < size || seen == self.count {
                    return None;
                }
                each(&mut numbers)?;
                seen += 1;
            }
        }
        if seen == self.count { Some(()) } else { None }
    }
}

/// Entries of `size` bytes in one piece.
pub const fn per_piece(size: usize) -> usize {
    PIECE / size
}

fn pieces(count: u32, size: usize) -> usize {
    (count as usize).div_ceil(per_piece(size))
}

/// A spec where it lies, in somebody's arguments.
pub struct View<'a, A> {
    /// The numbers.
    pub header: Header,
    /// The directory.
    pub directory: &'a [u8],
    /// The exec label.
    pub label: Option<&'a [u8]>,
    /// The kept descriptors, ascending.
    pub keep: List<A>,
    /// The supplementary groups, ascending.
    pub groups: List<A>,
    /// The limits.
    pub limits: List<A>,
    /// Where the candidates for the program begin among the arguments; `header.candidates` of them.
    pub candidates: usize,
    /// Where the program's own arguments begin.
    pub program: usize,
}

impl<'a, A: Arguments<'a>> View<'a, A> {
    /// Reads a spec; `None` for anything that [`Spec::encode`](crate::spec::Spec::encode) does not write.
    pub fn decode(arguments: A) -> Option<Self> {
        let header = Header::decode(arguments.get(1)?)?;
        if header.version != VERSION || header.flags & !flag::ALL != 0 || header.groups > MOST_GROUPS {
            return None;
        }
        let mut next = 2;
        let directory = arguments.get(next)?;
        next += 1;
        let label = if header.flags & flag::LABEL != 0 {
            next += 1;
            Some(arguments.get(next - 1)?)
        } else {
            None
        };
        let mut list = |count: u32, size: usize| {
            let end = next.checked_add(pieces(count, size))?;
            let list = List { arguments, next, end, count };
            next = end;
            Some(list)
        };
        let keep = list(header.keep, SHORT)?;
        let groups = list(header.groups, SHORT)?;
        let limits = list(header.limits, LIMIT)?;
        let candidates = next;
        let program = candidates.checked_add(header.candidates as usize)?;
        // At least argv[0] of the program: an empty argument vector is refused (CVE-2021-4034).
        if program >= arguments.count() {
            return None;
        }
        Some(Self { header, directory, label, keep, groups, limits, candidates, program })
    }
}
