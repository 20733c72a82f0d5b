//! Text from outside made safe: token text, prompts, file names, model metadata and dataset rows pass through here once
//! and can never move the cursor or colour the screen.

use std::path::Path;

/// Replace every control, bidirectional-override and other invisible formatting character by a visible escape.
#[must_use]
pub fn scrub(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '·' } else { c })
        .collect()
}

/// A path for display.
#[must_use]
pub fn path(path: &Path) -> String {
    scrub(&path.to_string_lossy())
}
