//! Measures a recorded run.
