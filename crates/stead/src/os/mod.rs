//! What only one platform has.

pub mod linux;
