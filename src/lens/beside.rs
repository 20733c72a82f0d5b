//! How far the distributions of one model are from those of another, which has a head of its own.

use super::distribution::{self, Plan};
use super::fused::{self, Source};
use super::{Kept, Lens, LensSettings, Opened};
use crate::error::Result;
use std::borrow::Cow;

impl Lens {
    /// KL(A‖B) in nats of every token and state, `[tokens][states]`; `None` where the two tiles do not have equally many
    /// tokens, states and logits. Both are compared logit by logit, so a vocabulary must mean the same in both.
    ///
    /// # Errors
    /// If a tensor operation fails on the device that holds a tile.
    pub fn divergences(&self, a: &Opened, b: &Opened) -> Result<Option<Vec<Box<[f32]>>>> {
        let (tokens, states) = (a.tokens, a.states);
        if (tokens, states) != (b.tokens, b.states) {
            return Ok(None);
        }
        let (z_a, z_b) = (a.all_logits()?, b.all_logits()?);
        let of_token = z_a.len() / tokens.max(1);
        if z_a.len() != z_b.len() || of_token == 0 {
            return Ok(None);
        }
        let mut both = Vec::with_capacity(2 * z_a.len());
        for (a, b) in z_a.chunks(of_token).zip(z_b.chunks(of_token)) {
            both.extend_from_slice(a);
            both.extend_from_slice(b);
        }
        let settings = LensSettings {
            renyi: Vec::new(),
            ..self.settings.clone()
        };
        let plan = Plan::new(&settings).grouped(2);
        let source = Source::Logits(&both, of_token / states);
        let rows = fused::read(&source, 2 * tokens, states, &[], &plan, &mut []);
        let of_pair = |first: usize| -> Option<Box<[f32]>> {
            let of =
                |row: usize| distribution::divergence(&rows[row].0, Some(&rows[row - states].0));
            (first + states..first + 2 * states).map(of).collect()
        };
        Ok((0..tokens)
            .map(|token| of_pair(2 * token * states))
            .collect())
    }
}

impl Opened {
    /// All logits, `[tokens][states][V]`.
    fn all_logits(&self) -> Result<Cow<'_, [f32]>> {
        Ok(match &self.kept {
            Kept::Logits { logits, .. } => Cow::Borrowed(logits),
            Kept::Inputs { head, inputs, .. } => {
                Cow::Owned(head.all(inputs)?.flatten_all()?.to_vec1()?)
            }
        })
    }
}
