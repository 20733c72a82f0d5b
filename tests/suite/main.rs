//! All integration tests, in one binary so that they link once.
#![allow(clippy::unwrap_used)]

mod binary;
mod demo;
mod lens;
mod oracle;
mod terminal;
