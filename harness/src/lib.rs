//! Rehearse a flash sale before it opens: provision it, load it, break it, and prove from the evidence what happened.
//!
//! A **scenario** becomes a **run**: a stack is provisioned, goose fires an open-loop spike at it, a nemesis breaks things
//! on a timeline, and everything that happened is written to a **history**. What is right of the history is pure.

pub mod check;
pub mod history;
pub mod report;
pub mod summary;
