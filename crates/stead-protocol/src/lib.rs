//! What is said between stead's service and its callers: a Varlink interface.
#![forbid(unsafe_code)]
