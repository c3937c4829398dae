//! What the policy says, and how it says what is wrong with it.

mod decisions;
mod files;
mod messages;
mod properties;
mod written;
