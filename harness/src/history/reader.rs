//! Reads a recorded run back.
