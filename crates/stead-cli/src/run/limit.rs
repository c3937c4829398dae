//! `--limit NAME=SOFT[:HARD]`.

use std::str::FromStr;

use stead::os::linux::Limit;

/// The names that `prlimit` gives them.
const NAMES: [(&str, Limit); 16] = [
    ("as", Limit::AddressSpace),
    ("core", Limit::Core),
    ("cpu", Limit::CpuTime),
    ("data", Limit::Data),
    ("fsize", Limit::FileSize),
    ("locks", Limit::Locks),
    ("memlock", Limit::LockedMemory),
    ("msgqueue", Limit::MessageQueues),
    ("nice", Limit::Nice),
    ("nofile", Limit::OpenFiles),
    ("nproc", Limit::Processes),
    ("rss", Limit::ResidentSet),
    ("rtprio", Limit::RealtimePriority),
    ("rttime", Limit::RealtimeTime),
    ("sigpending", Limit::PendingSignals),
    ("stack", Limit::Stack),
];

/// One limit and its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub limit: Limit,
    pub soft: u64,
    pub hard: u64,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, values) = text.split_once('=').ok_or("it is written NAME=VALUE")?;
        let Some((_, limit)) = NAMES.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            return Err(format!("there is no limit {name:?}; there are {}", names.join(", ")));
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (value(soft)?, value(hard)?);
        if soft > hard {
            return Err("the soft limit is above the hard one".to_owned());
        }
        Ok(Self { limit: *limit, soft, hard })
    }
}

fn value(text: &str) -> Result<u64, String> {
    if matches!(text, "unlimited" | "infinity") {
        return Ok(Limit::UNLIMITED);
    }
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no number"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_name_and_one_or_two_values() {
        let read = |text: &str| text.parse::<Setting>().map(|one| (one.limit, one.soft, one.hard));
        assert_eq!(read("nofile=256"), Ok((Limit::OpenFiles, 256, 256)));
        assert_eq!(read("as=1G:unlimited"), Ok((Limit::AddressSpace, 1 << 30, Limit::UNLIMITED)));
        for wrong in ["nofile", "nofile=", "files=1", "nofile=2:1", "as=99999999999999999999", "as=-1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
