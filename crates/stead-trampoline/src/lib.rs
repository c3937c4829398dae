//! The trampoline: see ARCHITECTURE.md.
