//! Colour: perceptual ramps in sixteen steps, readable ink on each of them, and what poorer terminals get instead.

use ratatui::style::Color;
use serde::Deserialize;

/// Steps of a ramp. Few enough that neighbouring cells share a colour, which keeps a frame small over SSH.
pub const STEPS: usize = 16;

/// Steps of a diverging ramp: as many on either side of zero, and zero's own.
pub const GAPS: usize = 15;

/// Glyphs for differences where there is no colour, from zero away: below it, above it.
const SIGNS: [[char; 8]; 2] = [
    [' ', '.', '.', '-', '-', '=', '=', '≡'],
    [' ', ':', ':', '+', '+', '*', '*', '#'],
];

/// Glyphs that stand for a ramp where there is no colour at all, from low to high.
const GLYPHS: [char; 10] = [' ', '.', ':', '-', '=', '+', '*', '#', '%', '@'];

/// A 24-bit colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rgb(pub u8, pub u8, pub u8);

impl Rgb {
    /// Black.
    pub const BLACK: Self = Self(0, 0, 0);
    /// White.
    pub const WHITE: Self = Self(255, 255, 255);

    /// `#rrggbb`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text
            .strip_prefix('#')
            .filter(|d| d.len() == 6 && d.is_ascii())?;
        let channel = |i: usize| u8::from_str_radix(digits.get(i..i + 2)?, 16).ok();
        Some(Self(channel(0)?, channel(2)?, channel(4)?))
    }

    /// Relative luminance, 0 to 1 (WCAG 2.2).
    #[must_use]
    pub fn luminance(self) -> f64 {
        let linear = |c: u8| {
            let c = f64::from(c) / 255.0;
            if c <= 0.040_45 {
                c / 12.92
            } else {
                ((c + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * linear(self.0) + 0.7152 * linear(self.1) + 0.0722 * linear(self.2)
    }

    /// Contrast ratio, 1 to 21 (WCAG 2.2).
    #[must_use]
    pub fn contrast(self, other: Self) -> f64 {
        let (a, b) = (self.luminance(), other.luminance());
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// Black or white, whichever reads better on this colour; always at least 4.58:1.
    #[must_use]
    pub fn ink(self) -> Self {
        if self.contrast(Self::WHITE) >= self.contrast(Self::BLACK) {
            Self::WHITE
        } else {
            Self::BLACK
        }
    }

    /// A little towards the other end of the scale: a plain area that stands out from a background of this colour.
    #[must_use]
    pub fn raised(self) -> Self {
        let towards = self.ink();
        let mix = |a: u8, b: u8| ((11 * u16::from(a) + u16::from(b)) / 12) as u8;
        Self(
            mix(self.0, towards.0),
            mix(self.1, towards.1),
            mix(self.2, towards.2),
        )
    }

    /// Index of the nearest colour among xterm's fixed 240 (the first 16 are the user's own and may be anything).
    #[must_use]
    pub fn xterm(self) -> u8 {
        const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
        let nearest = |c: u8| (0..6).min_by_key(|&i| LEVELS[i].abs_diff(c)).unwrap_or(0);
        let (r, g, b) = (nearest(self.0), nearest(self.1), nearest(self.2));
        let cube = Self(LEVELS[r], LEVELS[g], LEVELS[b]);
        let mean = (u16::from(self.0) + u16::from(self.1) + u16::from(self.2)) / 3;
        let grey_index = (mean.saturating_sub(3) / 10).min(23) as u8;
        let grey_level = 8 + 10 * grey_index;
        let grey = Self(grey_level, grey_level, grey_level);
        if self.distance(grey) < self.distance(cube) {
            232 + grey_index
        } else {
            16 + (36 * r + 6 * g + b) as u8
        }
    }

    fn distance(self, other: Self) -> u32 {
        let d = |a: u8, b: u8| u32::from(a.abs_diff(b)).pow(2);
        // Green weighs most to the eye; a plain sum turns dark blues grey.
        2 * d(self.0, other.0) + 4 * d(self.1, other.1) + 3 * d(self.2, other.2)
    }
}

/// How many colours the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// No colour: glyphs, bold, underline and reverse carry the meaning.
    Mono,
    /// The 16 named colours.
    Ansi16,
    /// xterm's 256 colours.
    Ansi256,
    /// 24 bits.
    True,
}

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColourChoice {
    /// Whatever `NO_COLOR`, `COLORTERM` and `TERM` say.
    #[default]
    Auto,
    /// No colour.
    Never,
    /// The 16 named colours.
    #[serde(rename = "16")]
    Ansi16,
    /// 256 colours.
    #[serde(rename = "256")]
    Ansi256,
    /// 24-bit colours.
    Truecolor,
}

impl std::str::FromStr for ColourChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "never" | "none" => Ok(Self::Never),
            "16" => Ok(Self::Ansi16),
            "256" => Ok(Self::Ansi256),
            "truecolor" | "always" => Ok(Self::Truecolor),
            _ => Err("choose auto, never, 16, 256 or truecolor".to_owned()),
        }
    }
}

impl ColourChoice {
    /// The depth to draw in; `var` reads the environment.
    pub fn resolve(self, var: impl Fn(&str) -> Option<String>) -> Depth {
        match self {
            Self::Never => return Depth::Mono,
            Self::Ansi16 => return Depth::Ansi16,
            Self::Ansi256 => return Depth::Ansi256,
            Self::Truecolor => return Depth::True,
            Self::Auto => {}
        }
        let set = |name: &str| var(name).filter(|v| !v.is_empty());
        let term = set("TERM").unwrap_or_default();
        if set("NO_COLOR").is_some() || term == "dumb" {
            return Depth::Mono;
        }
        let colorterm = set("COLORTERM").unwrap_or_default();
        let direct = ["kitty", "ghostty", "alacritty", "wezterm", "foot", "direct"];
        if matches!(colorterm.as_str(), "truecolor" | "24bit")
            || direct.iter().any(|name| term.contains(name))
        {
            Depth::True
        } else if term.contains("256") {
            Depth::Ansi256
        } else {
            Depth::Ansi16
        }
    }
}

/// One colour as this terminal can show it; `named` is what 16-colour terminals get.
#[must_use]
pub fn paint(rgb: Rgb, named: Color, depth: Depth) -> Color {
    match depth {
        Depth::True => Color::Rgb(rgb.0, rgb.1, rgb.2),
        Depth::Ansi256 => Color::Indexed(rgb.xterm()),
        Depth::Ansi16 => named,
        Depth::Mono => Color::Reset,
    }
}

/// The perceptual ramps on offer; all keep their order under the common colour-vision deficiencies and in grey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RampName {
    /// Violet, teal, yellow.
    Viridis,
    /// Blue, grey, yellow.
    Cividis,
    /// Black, magenta, cream.
    Magma,
}

/// How one step of a ramp is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shade {
    /// Fill.
    pub bg: Color,
    /// Text on the fill.
    pub ink: Color,
    /// What fills a cell that has no text of its own: a space, a dither between two named colours, or a glyph.
    pub glyph: char,
    /// The colour of that glyph.
    pub glyph_ink: Color,
}

/// Sixteen shades from low to high.
#[derive(Clone, Debug, PartialEq)]
pub struct Ramp {
    shades: [Shade; STEPS],
}

impl Ramp {
    /// The ramp for a terminal of this depth; `reverse` puts the light end at the low values.
    #[must_use]
    pub fn new(name: RampName, reverse: bool, depth: Depth) -> Self {
        let shades = std::array::from_fn(|i| {
            let step = if reverse { STEPS - 1 - i } else { i };
            match depth {
                Depth::Mono => Shade {
                    bg: Color::Reset,
                    ink: Color::Reset,
                    glyph: GLYPHS[i * GLYPHS.len() / STEPS],
                    glyph_ink: Color::Reset,
                },
                Depth::Ansi16 => dithered(name, step),
                Depth::Ansi256 | Depth::True => {
                    let fill = sample(name, step);
                    let bg = paint(fill, Color::Reset, depth);
                    let ink = paint(fill.ink(), Color::Reset, depth);
                    Shade {
                        bg,
                        ink,
                        glyph: ' ',
                        glyph_ink: ink,
                    }
                }
            }
        });
        Self { shades }
    }

    /// Shades for values on both sides of zero, [`GAPS`] of them: blue below, orange above (told apart under the common
    /// colour-vision deficiencies), `neutral` at zero.
    #[must_use]
    pub fn diverging(neutral: Rgb, depth: Depth) -> Self {
        let middle = GAPS / 2;
        let shades = std::array::from_fn(|i| {
            let i = i.min(GAPS - 1);
            let (side, away) = match i < middle {
                true => (0, middle - i),
                false => (1, i - middle),
            };
            match depth {
                Depth::Mono => Shade {
                    bg: Color::Reset,
                    ink: Color::Reset,
                    glyph: SIGNS[side][away],
                    glyph_ink: Color::Reset,
                },
                Depth::Ansi16 => {
                    let far = [Color::Blue, Color::LightRed][side];
                    let strong = away > middle / 2;
                    Shade {
                        bg: if strong { far } else { Color::Reset },
                        ink: match (strong, side) {
                            (false, _) => Color::Reset,
                            (true, 0) => Color::White,
                            (true, _) => Color::Black,
                        },
                        glyph: [' ', '░', '▒', '▓', ' ', ' ', ' ', ' '][away],
                        glyph_ink: far,
                    }
                }
                Depth::Ansi256 | Depth::True => {
                    let share = away as f32 / middle as f32;
                    let mix = |a: u8, b: u8| {
                        (f32::from(a) + share * (f32::from(b) - f32::from(a))).round() as u8
                    };
                    let far = [Rgb(0x3d, 0x8b, 0xfd), Rgb(0xfd, 0x8c, 0x2b)][side];
                    let fill = Rgb(
                        mix(neutral.0, far.0),
                        mix(neutral.1, far.1),
                        mix(neutral.2, far.2),
                    );
                    let ink = paint(fill.ink(), Color::Reset, depth);
                    Shade {
                        bg: paint(fill, Color::Reset, depth),
                        ink,
                        glyph: ' ',
                        glyph_ink: ink,
                    }
                }
            }
        });
        Self { shades }
    }

    /// The shade of a step; steps past the end are the last.
    #[must_use]
    pub fn shade(&self, step: u8) -> Shade {
        self.shades[usize::from(step).min(STEPS - 1)]
    }
}

/// The step of `value` within a range: the lowest and the highest step also hold everything beyond.
#[must_use]
pub fn step(value: f32, (low, high): (f32, f32)) -> u8 {
    let span = high - low;
    if span <= 0.0 {
        return if value > low { STEPS as u8 - 1 } else { 0 };
    }
    let t = ((value - low) / span).clamp(0.0, 1.0);
    ((t * STEPS as f32) as u8).min(STEPS as u8 - 1)
}

/// The step of a difference among [`GAPS`] that reach to `most` on either side; the middle one is zero's.
#[must_use]
pub fn gap_step(value: f32, most: f32) -> u8 {
    let middle = (GAPS / 2) as f32;
    let share = match most > 0.0 {
        true => (value / most).clamp(-1.0, 1.0),
        false => 0.0,
    };
    (middle + (share * middle).round()) as u8
}

/// The middle colour of a step of a named ramp.
#[must_use]
pub fn sample(name: RampName, step: usize) -> Rgb {
    use colorgrad::Gradient as _;
    let t = step as f32 / (STEPS - 1) as f32;
    let [r, g, b, _] = match name {
        RampName::Viridis => colorgrad::preset::viridis().at(t),
        RampName::Cividis => colorgrad::preset::cividis().at(t),
        // Its black end would be a hole in a light page.
        RampName::Magma => colorgrad::preset::magma().at(0.12 + 0.88 * t),
    }
    .to_rgba8();
    Rgb(r, g, b)
}

/// Sixteen steps out of five named colours: each pair is mixed by the shade characters.
fn dithered(name: RampName, step: usize) -> Shade {
    let anchors = match name {
        RampName::Viridis => [
            Color::Blue,
            Color::Cyan,
            Color::Green,
            Color::Yellow,
            Color::White,
        ],
        RampName::Cividis => [
            Color::Blue,
            Color::DarkGray,
            Color::Gray,
            Color::Yellow,
            Color::White,
        ],
        RampName::Magma => [
            Color::Blue,
            Color::Magenta,
            Color::LightRed,
            Color::Yellow,
            Color::White,
        ],
    };
    let (pair, level) = (step / 4, step % 4);
    let bg = anchors[pair];
    let ink = match bg {
        Color::Blue | Color::DarkGray | Color::Magenta => Color::White,
        _ => Color::Black,
    };
    Shade {
        bg,
        ink,
        glyph: [' ', '░', '▒', '▓'][level],
        glyph_ink: anchors[pair + 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            pairs
                .iter()
                .find(|(k, _)| *k == name)
                .map(|(_, v)| (*v).to_owned())
        }
    }

    #[test]
    fn the_environment_decides_the_depth() {
        let auto = |pairs: &[(&str, &str)]| ColourChoice::Auto.resolve(env(pairs));
        assert_eq!(
            auto(&[("COLORTERM", "truecolor"), ("TERM", "xterm")]),
            Depth::True
        );
        assert_eq!(auto(&[("TERM", "xterm-kitty")]), Depth::True);
        assert_eq!(auto(&[("TERM", "screen-256color")]), Depth::Ansi256);
        assert_eq!(auto(&[("TERM", "linux")]), Depth::Ansi16);
        assert_eq!(
            auto(&[("NO_COLOR", "1"), ("COLORTERM", "truecolor")]),
            Depth::Mono
        );
        assert_eq!(
            auto(&[("NO_COLOR", ""), ("COLORTERM", "truecolor")]),
            Depth::True
        );
        assert_eq!(auto(&[("TERM", "dumb")]), Depth::Mono);
        let forced = ColourChoice::Ansi256.resolve(env(&[("NO_COLOR", "1")]));
        assert_eq!(forced, Depth::Ansi256);
    }

    #[test]
    fn ink_reads_on_every_step_of_every_ramp() {
        for name in [RampName::Viridis, RampName::Cividis, RampName::Magma] {
            for step in 0..STEPS {
                let fill = sample(name, step);
                let contrast = fill.contrast(fill.ink());
                assert!(contrast >= 4.5, "{name:?} step {step}: {contrast:.2}");
            }
        }
    }

    #[test]
    fn ramps_rise_in_luminance_from_step_to_step() {
        for name in [RampName::Viridis, RampName::Cividis, RampName::Magma] {
            let lum: Vec<f64> = (0..STEPS).map(|s| sample(name, s).luminance()).collect();
            assert!(lum.windows(2).all(|w| w[0] < w[1]), "{name:?}: {lum:?}");
        }
    }

    #[test]
    fn sixteen_steps_stay_apart_in_sixteen_colours_and_ten_without() {
        for name in [RampName::Viridis, RampName::Cividis, RampName::Magma] {
            let ramp = Ramp::new(name, false, Depth::Ansi16);
            for s in 1..STEPS as u8 {
                assert_ne!(ramp.shade(s - 1), ramp.shade(s), "{name:?} {s}");
            }
        }
        let mono = Ramp::new(RampName::Viridis, true, Depth::Mono);
        let glyphs: String = (0..16).map(|s| mono.shade(s).glyph).collect();
        assert_eq!(glyphs, "  ..:--=++**#%%@");
    }

    #[test]
    fn steps_clamp_and_survive_an_empty_range() {
        assert_eq!(step(-5.0, (0.0, 1.0)), 0);
        assert_eq!(step(0.5, (0.0, 1.0)), 8);
        assert_eq!(step(1.0, (0.0, 1.0)), 15);
        assert_eq!(step(f32::INFINITY, (0.0, 1.0)), 15);
        assert_eq!(step(2.0, (2.0, 2.0)), 0);
        assert_eq!(step(3.0, (2.0, 2.0)), 15);
    }

    #[test]
    fn differences_have_two_sides_and_a_neutral_middle() {
        assert_eq!((gap_step(0.0, 2.0), gap_step(2.0, 2.0)), (7, 14));
        assert_eq!((gap_step(-9.0, 2.0), gap_step(1.0, 0.0)), (0, 7));
        let neutral = Rgb(0x20, 0x24, 0x2c);
        let ramp = Ramp::diverging(neutral, Depth::True);
        let fill = |step: u8| ramp.shade(step).bg;
        assert_eq!(fill(7), Color::Rgb(0x20, 0x24, 0x2c));
        for step in 1..GAPS as u8 {
            assert_ne!(fill(step - 1), fill(step), "{step}");
        }
        for dark in [neutral, Rgb(0xf2, 0xf2, 0xef)] {
            let ramp = Ramp::diverging(dark, Depth::True);
            for step in 0..GAPS as u8 {
                let shade = ramp.shade(step);
                let (Color::Rgb(r, g, b), Color::Rgb(x, y, z)) = (shade.bg, shade.ink) else {
                    panic!("{shade:?}");
                };
                let contrast = Rgb(r, g, b).contrast(Rgb(x, y, z));
                assert!(contrast >= 4.5, "step {step}: {contrast:.2}");
            }
        }
        let mono = Ramp::diverging(neutral, Depth::Mono);
        let glyphs: String = (0..15).map(|s| mono.shade(s).glyph).collect();
        assert_eq!(glyphs, "≡==--.. ::++**#");
    }

    #[test]
    fn xterm_keeps_pure_colours_and_greys() {
        assert_eq!(Rgb(255, 0, 0).xterm(), 196);
        assert_eq!(Rgb::BLACK.xterm(), 16);
        assert_eq!(Rgb::WHITE.xterm(), 231);
        assert_eq!(Rgb(128, 128, 128).xterm(), 244);
    }
}
