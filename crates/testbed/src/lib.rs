//! Throw-away users, PAM stack, homes and clients for the demo and the tests.
