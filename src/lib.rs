//! A terminal microscope for uncertainty inside language models.
pub mod train;
