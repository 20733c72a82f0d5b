//! Everything a key, the palette or a click can ask for. Names are what `config.toml` binds.

use serde::{Deserialize, Serialize};

/// Chapters of the help page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Starting and holding a generation.
    Run,
    /// The prompt editor.
    Prompt,
    /// Control vectors and comparisons.
    Compare,
    /// Walking over tokens and layers.
    Move,
    /// Finding tokens.
    Find,
    /// How the map is drawn.
    Map,
    /// Metrics.
    Metric,
    /// Files and the clipboard.
    Keep,
    /// The program itself.
    Program,
    /// Inside lists, panels and pages.
    Lists,
}

impl Group {
    /// All chapters in the order of the help page.
    pub const ALL: [Self; 10] = [
        Self::Run,
        Self::Prompt,
        Self::Compare,
        Self::Move,
        Self::Find,
        Self::Map,
        Self::Metric,
        Self::Keep,
        Self::Program,
        Self::Lists,
    ];

    /// The chapter's heading.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Run => "Run",
            Self::Prompt => "Prompt",
            Self::Compare => "Steer and compare",
            Self::Move => "Move",
            Self::Find => "Find",
            Self::Map => "Map",
            Self::Metric => "Metric",
            Self::Keep => "Keep",
            Self::Program => "Program",
            Self::Lists => "Lists and panels",
        }
    }
}

macro_rules! actions {
    ($($group:ident { $($variant:ident $name:literal $label:literal $help:literal;)* })*) => {
        /// One thing the user can ask for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Action {
            $($(
                #[doc = $help]
                #[serde(rename = $name)]
                $variant,
            )*)*
        }

        impl Action {
            /// Every action, chapter by chapter.
            pub const ALL: &'static [Self] = &[$($(Self::$variant,)*)*];

            /// The name in `config.toml`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $($(Self::$variant => $name,)*)* }
            }

            /// A word or two for the line of hints.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $($(Self::$variant => $label,)*)* }
            }

            /// A sentence for the palette and the help page.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self { $($(Self::$variant => $help,)*)* }
            }

            /// Its chapter.
            #[must_use]
            pub fn group(self) -> Group {
                match self { $($(Self::$variant => Group::$group,)*)* }
            }
        }
    };
}

actions! {
    Run {
        Run "run" "run" "Read the prompt and generate";
        PauseResume "pause" "pause" "Hold the generation, or go on";
        Step "step" "step" "Draw one token and hold";
        Stop "stop" "stop" "End the generation; what was read stays";
        Continue "continue" "continue" "Draw more tokens after the end";
        SampleFirst "sample-1" "sample 1" "Run the next prompt of the first sample set";
        SampleSecond "sample-2" "sample 2" "Run the next prompt of the second sample set";
        SampleThird "sample-3" "sample 3" "Run the next prompt of the third sample set";
        Samples "samples" "samples" "Choose a sample prompt";
        Sampling "sampling" "sampling" "Change temperature, top-k, top-p, min-p, penalty, seed and length";
    }
    Prompt {
        EditPrompt "edit-prompt" "prompt" "Write the prompt";
        LeavePrompt "leave-prompt" "rooms" "Leave the prompt for the rooms";
        NewLine "new-line" "new line" "Break the prompt's line";
        HistoryPrevious "history-previous" "earlier" "Earlier prompt (on the first line)";
        HistoryNext "history-next" "later" "Later prompt (on the last line)";
        ClearPrompt "clear-prompt" "clear" "Empty the prompt";
    }
    Compare {
        Steer "steer" "steer" "Control vectors: which, how strongly, where";
        Weaker "weaker" "weaker" "Less of the control vector, from the next token on";
        Stronger "stronger" "stronger" "More of the control vector, from the next token on";
        Sweep "sweep" "sweep" "Try a range of strengths in the background: every metric by strength and layer";
        Replay "replay" "replay" "Read the text again, all of it under what is in force now";
        Compare "compare" "compare" "Choose what to compare";
        CompareFree "compare-free" "free" "Plain beside steered, each goes on with its own text";
        CompareLocked "compare-locked" "locked" "Plain beside steered, both read the plain model's text";
        CompareModels "compare-models" "two models" "This model beside a second one on the same prompt; again: beside another";
        ComparePrompts "compare-prompts" "next pair" "A prompt of the known set beside one of the near-OOD set; again: the next pair";
        CompareSets "compare-sets" "two sets" "Known beside near-OOD: two sets of prompts, layer by layer";
        CompareOff "compare-off" "alone" "One run alone again";
        TurnPairing "free-or-locked" "free/locked" "Compare free instead of locked, or the other way round";
        TurnLower "lower-room" "view" "What a comparison shows where it has no room for all of it";
        TurnGap "gap" "%" "What the map of differences shows: difference, percent, KL";
    }
    Move {
        MoveLeft "left" "left" "One token back";
        MoveRight "right" "right" "One token on";
        MoveUp "up" "up" "One layer up; in the stream one line up";
        MoveDown "down" "down" "One layer down; in the stream one line down";
        PageBack "page-back" "page back" "A page of tokens back";
        PageOn "page-on" "page on" "A page of tokens on";
        First "first" "first" "First token";
        Last "last" "last" "Newest token";
        TopLayer "top-layer" "last layer" "The last layer, what the model really says";
        NextRoom "next-room" "room" "Next room";
        PreviousRoom "previous-room" "room back" "Previous room";
        Inspect "inspect" "inspect" "Look into the cell under the cursor";
        Back "back" "back" "Close, or give up what was begun; never quits";
        Follow "follow" "follow" "Follow the newest token, or stay";
    }
    Find {
        Search "search" "search" "Search in the tokens";
        SearchNext "search-next" "next" "Next match";
        SearchPrevious "search-previous" "previous" "Previous match";
        NextUncertain "next-uncertain" "unsure" "Next most uncertain token (entropy of the last layer)";
        PreviousUncertain "previous-uncertain" "unsure back" "Back to the more uncertain token";
        NextMask "next-mask" "next gap" "Next gap that a masked model fills";
        PreviousMask "previous-mask" "gap before" "Previous gap that a masked model fills";
        Decided "jump-decided" "decided" "The layer at which this token is decided";
    }
    Map {
        ZoomIn "zoom-in" "zoom" "Larger cells, up to the layer's word in each";
        ZoomOut "zoom-out" "zoom out" "Smaller cells, down to two layers a row";
        RangeNext "range-next" "range" "Colour range: per map, per row, fixed";
        RangePrevious "range-previous" "range back" "Colour range, the other way round";
        DecidedLine "decided-line" "decided line" "Show or hide the line where each token is decided";
        Themes "themes" "theme" "Choose a theme, seeing it at once";
    }
    Metric {
        Metrics "metrics" "metric" "Choose a metric";
        Metric1 "metric-1" "1st" "First favourite metric";
        Metric2 "metric-2" "2nd" "Second favourite metric";
        Metric3 "metric-3" "3rd" "Third favourite metric";
        Metric4 "metric-4" "4th" "Fourth favourite metric";
        Metric5 "metric-5" "5th" "Fifth favourite metric";
        Metric6 "metric-6" "6th" "Sixth favourite metric";
        Metric7 "metric-7" "7th" "Seventh favourite metric";
        Metric8 "metric-8" "8th" "Eighth favourite metric";
        Metric9 "metric-9" "9th" "Ninth favourite metric";
    }
    Keep {
        Export "export" "export" "Write the run's tables";
        CopyText "copy-text" "copy" "Copy the text to the clipboard (OSC 52)";
        CopyCell "copy-cell" "copy cell" "Copy the readings of the cell under the cursor";
    }
    Program {
        Palette "palette" "palette" "Every action and its key";
        Help "help" "help" "All keys on a page";
        ShowError "show-error" "whole message" "The whole text of the last message";
        Redraw "redraw" "redraw" "Paint the whole screen again";
        Suspend "suspend" "suspend" "Back to the shell; `fg` returns";
        Interrupt "interrupt" "stop" "End the generation; without one, quit";
        Quit "quit" "quit" "Leave; asks while a generation runs";
    }
    Lists {
        ListUp "list-up" "up" "Line up";
        ListDown "list-down" "down" "Line down";
        ListPageUp "list-page-up" "page up" "Page up";
        ListPageDown "list-page-down" "page down" "Page down";
        Less "less" "less" "Smaller value";
        More "more" "more" "Larger value";
        Accept "accept" "choose" "Take the chosen line";
        Remove "remove" "remove" "Take the chosen line away";
    }
}

impl Action {
    /// The action with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_are_what_serde_reads() {
        for (i, action) in Action::ALL.iter().enumerate() {
            assert!(
                Action::ALL[..i].iter().all(|a| a.name() != action.name()),
                "{}",
                action.name()
            );
            let json = serde_json::to_string(action).unwrap();
            assert_eq!(json, format!("\"{}\"", action.name()));
            assert_eq!(Action::by_name(action.name()), Some(*action));
        }
    }
}
