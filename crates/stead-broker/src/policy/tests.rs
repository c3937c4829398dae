//! What the policy says, and how it says what is wrong with it.

mod decisions;
