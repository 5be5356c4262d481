//! Writes the ops of a run as they happen.
