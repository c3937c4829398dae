//! What the service did, for whom, as whom, and by which rule: one record for each decision, each process's start and
//! end, each file that was opened, and what was done to each logon session.
//!
//! Records go to the journal where there is one, to a file of JSON lines, and to whoever watches. Nobody who writes
//! a record ever waits: disks and watchers may be slow, and what they lose is counted and told. A record has no
//! place for a secret, and what clients chose (names, arguments) is escaped so that it can neither begin a line nor
//! move a terminal's cursor.

mod journal;
mod log;
mod record;
mod subscription;
mod text;
mod time;

#[cfg(test)]
mod tests;

pub use log::{Log, Options};
pub use record::{Event, Inode, Outcome, Party, Record};
pub use subscription::{Entry, Seen, Subscription, TooMany};
pub use text::{Text, among_words};
