//! Commands and the processes that they start.

mod stage;

pub use stage::Stage;
