//! What keeps one caller from wearing out the service, the accounts, or the other callers.
//!
//! [`Failures`] counts failed logons and says how long the next one has to wait; nobody sleeps in it, and its clock
//! is passed in. [`Quotas`] counts what each caller holds, and takes it back by itself. [`Records`] bounds how much of the
//! audit log each caller fills.

mod failures;
mod quotas;
mod records;

#[cfg(test)]
mod tests;

pub use failures::{Attempt, Failures, Wait};
pub use quotas::{Exceeded, Held, Holding, Quotas};
pub use records::{About, Becomes, Records};
