//! Creating a process: the plan, the child, the trampoline's report.
