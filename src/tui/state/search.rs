//! Finding tokens: by text, and by how unsure the model was.

use super::State;

impl State {
    /// The token ranges in which the searched text stands, in order. Upper and lower case are the same; a match may
    /// span tokens.
    #[must_use]
    pub fn matches(&self) -> Vec<std::ops::RangeInclusive<usize>> {
        let Some(run) = self.run.as_ref().filter(|_| !self.search.is_empty()) else {
            return Vec::new();
        };
        // Folding byte by byte keeps byte offsets, which say where tokens begin; beyond ASCII case counts.
        let mut text = Vec::new();
        let mut ends = Vec::with_capacity(run.grid.len());
        for position in 0..run.grid.len() {
            let token = run.text_of(position);
            text.extend(token.iter().map(u8::to_ascii_lowercase));
            ends.push(text.len());
        }
        let needle = self.search.to_ascii_lowercase().into_bytes();
        let token_at = |byte: usize| ends.partition_point(|end| *end <= byte);
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(offset) = find(&text[from..], &needle) {
            let start = from + offset;
            found.push(token_at(start)..=token_at(start + needle.len() - 1));
            from = start + needle.len();
        }
        found
    }

    /// Predicting positions of the tokens the model was least sure of, most uncertain first: those with the highest
    /// final-layer entropy, at most `k`.
    #[must_use]
    pub fn uncertain(&self, k: usize) -> Vec<usize> {
        let (Some(grid), Some(entropy)) = (self.grid(), self.columns().find("entropy")) else {
            return Vec::new();
        };
        let last = grid.states().saturating_sub(1);
        // Position 0 has seen one token and is unsure of everything.
        let mut all: Vec<(f32, usize)> = (1..grid.len())
            .filter_map(|p| Some((grid.value(last, p, entropy)?, p)))
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        all.into_iter().take(k).map(|(_, p)| p).collect()
    }
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return None;
    }
    text.windows(needle.len()).position(|w| w == needle)
}
