//! What is taken away from the screen: exports and copies.

use super::{Level, State};
use crate::error::Error;
use crate::trace::Side;
use crate::tui::effect::{Effect, Export};
use crate::tui::show;
use std::path::PathBuf;

impl State {
    pub(super) fn exported(&mut self, result: Result<Vec<PathBuf>, Error>) {
        match result {
            Ok(files) => {
                let folder = files.first().and_then(|f| f.parent());
                let folder =
                    folder.map_or(String::new(), |f| format!(" to {}", crate::text::path(f)));
                let list: Vec<String> = files.iter().map(|f| crate::text::path(f)).collect();
                self.note(
                    Level::Info,
                    format!("Wrote {} files{folder}\n{}", files.len(), list.join("\n")),
                );
            }
            Err(error) => self.note(Level::Error, error.to_string()),
        }
    }

    pub(super) fn export(&mut self) -> Vec<Effect> {
        if let Some(export) = self.model_export() {
            self.note(Level::Info, "Writing …");
            return vec![Effect::Export(export)];
        }
        match (self.record(), &self.model) {
            (Some(record), Some(model)) if !record.branches[0].1.is_empty() => {
                let tokenizer = std::sync::Arc::clone(&model.tokenizer);
                self.note(Level::Info, "Writing …");
                vec![Effect::Export(Export::Run(Box::new(record), tokenizer))]
            }
            _ => {
                self.note(Level::Warn, "There is nothing to export yet: run a prompt.");
                Vec::new()
            }
        }
    }

    pub(super) fn copy_text(&mut self) -> Vec<Effect> {
        let Some(run) = self.run.as_ref().filter(|r| !r.grid.is_empty()) else {
            self.note(Level::Warn, "There is no text yet: run a prompt.");
            return Vec::new();
        };
        let bytes: Vec<u8> = (0..run.grid.len())
            .flat_map(|position| run.text_of(position).iter().copied())
            .collect();
        // What another program pastes must not carry control sequences either.
        let text: String = String::from_utf8_lossy(&bytes)
            .chars()
            .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
            .collect();
        let count = text.chars().count();
        self.note(Level::Info, format!("Copied the text, {count} characters."));
        vec![Effect::Copy(text)]
    }

    pub(super) fn copy_cell(&mut self) -> Vec<Effect> {
        let super::Cursor {
            layer, position, ..
        } = self.cursor_of(Side::A);
        let Some(grid) = self.grid().filter(|g| g.cells(position).is_some()) else {
            self.note(Level::Warn, "This cell has not been read.");
            return Vec::new();
        };
        let token = grid.tokens().get(position);
        let token = token.map_or(String::new(), |t| show::label(&t.bytes));
        let mut text = format!("layer {layer}\ntoken {position} {token}\n");
        for (i, spec) in self.columns().metrics().iter().enumerate() {
            let value = grid.value(layer, position, crate::trace::Metric(i));
            let value = value.map_or("n/a".to_owned(), |v| v.to_string());
            text.push_str(&format!("{} {value} {}\n", spec.name, spec.unit.label()));
        }
        self.note(
            Level::Info,
            format!("Copied the readings of layer {layer}, token {position}."),
        );
        vec![Effect::Copy(text)]
    }
}
