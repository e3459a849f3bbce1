//! The revision log at its boundary: transcripts, crashes, flipped bytes, old files, threads, random runs.

mod concurrent;
mod crash;
mod flips;
mod fuzz;
mod golden;
mod harness;
mod merge;
mod opening;
mod random;
mod room;
mod transcript;
