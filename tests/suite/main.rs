//! All integration tests, in one binary so that they link once.

mod binary;
mod lens;
mod oracle;
mod terminal;
