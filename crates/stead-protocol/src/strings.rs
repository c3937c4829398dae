//! Arguments and environment that are longer than a message: in a memory file beside it.

use crate::frame::Malformed;
use crate::{CreateProcess, Text, Variable};

/// The longest that such a file may be. The kernel takes 6 MiB of arguments and environment at most, with a pointer to
/// each (`bprm_stack_limits` in fs/exec.c); here are three numbers more.
pub const LARGEST_STRINGS: usize = (6 << 20) + HEADER;

/// What the kernel counts for the pointer to a string.
const POINTER: usize = 8;
const HEADER: usize = 3 * NUMBER;
const NUMBER: usize = size_of::<u32>();

/// The arguments and the variables of a process.
///
/// Written down, three numbers of four bytes, little endian, say how many arguments follow, how many variables that are not
/// kept, and how many that are set. Then these follow, each string ended by a NUL byte; of a variable that is set its name,
/// and then its value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings {
    /// The arguments.
    pub arguments: Vec<Text>,
    /// Variables that are not kept.
    pub remove: Vec<Text>,
    /// Variables that are set.
    pub set: Vec<Variable>,
}

impl Strings {
    /// How long the strings of a call are, as the kernel would count them but for pointers.
    pub fn length(call: &CreateProcess) -> usize {
        let environment = &call.environment;
        let variables = environment.set.iter().flat_map(|variable| [&variable.name, &variable.value]);
        let all = call.arguments.iter().chain(&environment.remove).chain(variables);
        all.map(|text| text.as_bytes().len() + 1).sum()
    }

    /// Takes them out of a call.
    pub fn take(call: &mut CreateProcess) -> Self {
        let environment = &mut call.environment;
        Self {
            arguments: std::mem::take(&mut call.arguments),
            remove: std::mem::take(&mut environment.remove),
            set: std::mem::take(&mut environment.set),
        }
    }

    /// Puts them into a call that has none of its own.
    ///
    /// # Errors
    /// Gives them back where it has.
    pub fn put(self, call: &mut CreateProcess) -> Result<(), Self> {
        let environment = &mut call.environment;
        if !call.arguments.is_empty() || !environment.remove.is_empty() || !environment.set.is_empty() {
            return Err(self);
        }
        call.arguments = self.arguments;
        environment.remove = self.remove;
        environment.set = self.set;
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = &Text> {
        let variables = self.set.iter().flat_map(|variable| [&variable.name, &variable.value]);
        self.arguments.iter().chain(&self.remove).chain(variables)
    }

    /// As they are written down.
    ///
    /// # Errors
    /// `TooLong` for more than the kernel takes; `Unsendable` when one has a NUL byte.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let counts = [self.arguments.len(), self.remove.len(), self.set.len()];
        let length = HEADER + self.all().map(|text| text.as_bytes().len() + 1).sum::<usize>();
        let mut bytes = Vec::with_capacity(length.min(LARGEST_STRINGS));
        for count in counts {
            bytes.extend(u32::try_from(count).map_err(|_| Malformed::TooLong)?.to_le_bytes());
        }
        if !is_within(length, counts) {
            return Err(Malformed::TooLong);
        }
        for text in self.all() {
            if text.as_bytes().contains(&0) {
                return Err(Malformed::Unsendable("a string of the system holds no NUL".to_owned()));
            }
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
        Ok(bytes)
    }

    /// What is written down in `bytes`.
    ///
    /// # Errors
    /// `TooLong` for more than the kernel takes; `NoMessage` for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let wrong = || Malformed::NoMessage("the strings are not as their numbers say".to_owned());
        let (numbers, mut rest) = bytes.split_at_checked(HEADER).ok_or_else(wrong)?;
        let mut counts = [0; 3];
        for (count, number) in counts.iter_mut().zip(numbers.chunks_exact(NUMBER)) {
            let number: [u8; NUMBER] = number.try_into().map_err(|_| wrong())?;
            *count = usize::try_from(u32::from_le_bytes(number)).map_err(|_| wrong())?;
        }
        // Before anything is kept: of empty strings a small file could hold many.
        if !is_within(bytes.len(), counts) {
            return Err(Malformed::TooLong);
        }
        let mut next = || {
            let end = rest.iter().position(|byte| *byte == 0).ok_or_else(wrong)?;
            let text = Text::from(rest[..end].to_vec());
            rest = &rest[end + 1..];
            Ok(text)
        };
        let [arguments, remove, set] = counts;
        let strings = Self {
            arguments: (0..arguments).map(|_| next()).collect::<Result<_, Malformed>>()?,
            remove: (0..remove).map(|_| next()).collect::<Result<_, Malformed>>()?,
            set: (0..set)
                .map(|_| Ok(Variable { name: next()?, value: next()? }))
                .collect::<Result<_, Malformed>>()?,
        };
        if rest.is_empty() { Ok(strings) } else { Err(wrong()) }
    }
}

/// Whether the kernel could take it.
fn is_within(length: usize, counts: [usize; 3]) -> bool {
    let pointers = counts.iter().try_fold(0_usize, |sum, count| sum.checked_add(count.checked_mul(POINTER)?));
    pointers.and_then(|pointers| length.checked_add(pointers)).is_some_and(|all| all <= LARGEST_STRINGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text {
        Text::from(text)
    }

    #[test]
    fn what_is_written_down_is_read_again() {
        let strings = Strings {
            arguments: vec![text(""), text("-c"), Text::from(b"na\xefve".to_vec())],
            remove: vec![text("LANG")],
            set: vec![
                Variable { name: text("A"), value: text("") },
                Variable { name: text("B"), value: text("b=b") },
            ],
        };
        let bytes = strings.encode().unwrap();
        assert_eq!(Strings::decode(&bytes), Ok(strings.clone()));
        assert_eq!(Strings::decode(&Strings::default().encode().unwrap()), Ok(Strings::default()));
        for end in 0..bytes.len() {
            assert!(matches!(Strings::decode(&bytes[..end]), Err(Malformed::NoMessage(_))), "{end}");
        }
        let more = [&bytes[..], b"more\0"].concat();
        assert!(matches!(Strings::decode(&more), Err(Malformed::NoMessage(_))));

        let mut call = CreateProcess::default();
        strings.clone().put(&mut call).unwrap();
        assert_eq!(Strings::length(&call) + HEADER, bytes.len());
        strings.clone().put(&mut call).unwrap_err();
        assert_eq!(Strings::take(&mut call), strings);
    }

    #[test]
    fn more_than_the_kernel_takes_is_neither_written_nor_read() {
        let of = |length: usize| Strings { arguments: vec![text(&"x".repeat(length))], ..Strings::default() };
        let longest = LARGEST_STRINGS - HEADER - POINTER - 1;
        assert_eq!(Strings::decode(&of(longest).encode().unwrap()), Ok(of(longest)));
        assert_eq!(of(longest + 1).encode(), Err(Malformed::TooLong));
        assert_eq!(Strings::decode(&vec![0; LARGEST_STRINGS + 1]), Err(Malformed::TooLong));
        // Numbers that lie cost nothing.
        assert_eq!(Strings::decode(&[0xff; HEADER]), Err(Malformed::TooLong));
        let mut many = 700_000_u32.to_le_bytes().to_vec();
        many.resize(HEADER, 0);
        assert!(matches!(Strings::decode(&many), Err(Malformed::NoMessage(_))));
        assert!(matches!(of(1).encode(), Ok(bytes) if bytes.len() == HEADER + 2));
        let with_nul = Strings { arguments: vec![Text::from(vec![0])], ..Strings::default() };
        assert!(matches!(with_nul.encode(), Err(Malformed::Unsendable(_))));
    }
}
