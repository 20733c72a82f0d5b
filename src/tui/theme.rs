//! Themes: semantic roles and a ramp, read from `themes/*.toml` and from the user's own folder.

use super::colour::{Depth, Ramp, RampName, Rgb, paint};
use crate::error::{Error, Result};
use ratatui::style::{Color, Modifier, Style};
use serde::Deserialize;
use std::path::Path;

/// The themes that come with the program, first is the default.
const BUILT_IN: [&str; 3] = [
    include_str!("../../themes/dark.toml"),
    include_str!("../../themes/light.toml"),
    include_str!("../../themes/colourblind.toml"),
];

/// A theme as it is written in a file, before it is fitted to a terminal.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThemeFile {
    /// What `--theme` and the config call it.
    pub name: String,
    /// What the picker calls it.
    pub label: String,
    /// Colours of the heat map.
    ramp: RampName,
    /// Whether low values take the light end.
    #[serde(default)]
    reverse: bool,
    colours: Roles,
}

/// `["#rrggbb", "name among the 16"]`.
#[derive(Clone, Debug, Deserialize)]
struct Role(String, String);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Roles {
    background: Role,
    text: Role,
    muted: Role,
    faint: Role,
    border: Role,
    focus: Role,
    accent: Role,
    prompt: Role,
    good: Role,
    warn: Role,
    error: Role,
    cursor: Role,
    selection: Role,
    bar: Role,
    curve: Role,
    mean: Role,
    null: Role,
}

/// A theme fitted to the terminal: styles by what they mean.
#[derive(Clone, Debug)]
pub struct Theme {
    /// What `--theme` calls it.
    pub name: String,
    /// What the picker calls it.
    pub label: String,
    /// What the terminal can show.
    pub depth: Depth,
    /// Colours of values.
    pub ramp: Ramp,
    /// Colours of differences, around the background's own.
    pub gaps: Ramp,
    /// Plain text on the background; every room is filled with it first.
    pub base: Style,
    /// Less important text.
    pub muted: Style,
    /// Marks that should hardly be seen: cells not read, n/a.
    pub faint: Style,
    /// Lines between rooms.
    pub border: Style,
    /// The line around the room that has the keys.
    pub focus: Style,
    /// Room titles.
    pub title: Style,
    /// Names of keys, the chosen metric, the program's name.
    pub accent: Style,
    /// The prompt's own tokens.
    pub prompt: Style,
    /// Running well.
    pub good: Style,
    /// Held, or worth a look.
    pub warn: Style,
    /// Failed.
    pub error: Style,
    /// The frame around the cursor's cell; as a foreground on the cell's own colour.
    pub frame: Style,
    /// The cursor's token and label.
    pub cursor: Style,
    /// The chosen line of a list.
    pub selection: Style,
    /// Probability bars.
    pub bar: Style,
    /// The cursor's layer profile.
    pub curve: Style,
    /// The mean profile behind it.
    pub mean: Style,
    /// What chance would give.
    pub null: Style,
}

impl Theme {
    /// Plain text on the chosen line of a list, or off it.
    #[must_use]
    pub fn base_on(&self, chosen: bool) -> Style {
        self.on_line(self.base, chosen)
    }

    /// Less important text on the chosen line, or off it.
    #[must_use]
    pub fn muted_on(&self, chosen: bool) -> Style {
        self.on_line(if chosen { self.base } else { self.muted }, chosen)
    }

    /// A key on the chosen line, or off it.
    #[must_use]
    pub fn accent_on(&self, chosen: bool) -> Style {
        self.on_line(self.accent, chosen)
    }

    fn on_line(&self, style: Style, chosen: bool) -> Style {
        if chosen {
            style.patch(self.selection)
        } else {
            style
        }
    }
}

impl ThemeFile {
    /// Read a theme; `origin` names it in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let broken = |problem: String| {
            Error::failed(
                format!("theme {origin}: {}", crate::text::scrub(&problem)),
                "Compare it with themes/dark.toml.",
            )
        };
        let file: Self = toml::from_str(text).map_err(|e| broken(e.message().to_owned()))?;
        for Role(rgb, named) in file.colours.all() {
            Rgb::parse(rgb).ok_or_else(|| broken(format!("`{rgb}` is not a #rrggbb colour")))?;
            named
                .parse::<Color>()
                .map_err(|_| broken(format!("`{named}` is not one of the 16 colour names")))?;
        }
        Ok(file)
    }

    /// The themes of the program, then the `*.toml` files of `folder` by name. A broken user theme is named in the
    /// second part and left out; it must not keep the program from starting.
    #[must_use]
    pub fn all(folder: Option<&Path>) -> (Vec<Self>, Vec<Error>) {
        let mut problems = Vec::new();
        let mut themes = Vec::new();
        for text in BUILT_IN {
            match Self::parse(text, "built in") {
                Ok(theme) => themes.push(theme),
                Err(e) => problems.push(e),
            }
        }
        let mut files: Vec<_> = folder
            .and_then(|f| std::fs::read_dir(f.join("themes")).ok())
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "toml"))
            .collect();
        files.sort();
        for path in files {
            let read = std::fs::read_to_string(&path)
                .map_err(|e| Error::read(&path, &e))
                .and_then(|text| Self::parse(&text, &crate::text::path(&path)));
            match read {
                Ok(theme) => {
                    // A user's theme of the same name replaces ours.
                    themes.retain(|t: &Self| t.name != theme.name);
                    themes.push(theme);
                }
                Err(e) => problems.push(e),
            }
        }
        (themes, problems)
    }

    /// Fit the theme to a terminal.
    #[must_use]
    pub fn fit(&self, depth: Depth) -> Theme {
        let c = &self.colours;
        let fg = |role: &Role| Style::new().fg(role.colour(depth));
        let mono = depth == Depth::Mono;
        // Without colour, weight and reversal have to carry the roles.
        let plain = |style: Style, modifier: Modifier| {
            if mono {
                // Bold over dim is neither on most terminals.
                let other = Modifier::BOLD.union(Modifier::DIM) - modifier;
                style.add_modifier(modifier).remove_modifier(other)
            } else {
                style
            }
        };
        let on = |role: &Role| {
            let ink = match depth {
                Depth::Mono => return Style::new().add_modifier(Modifier::REVERSED),
                Depth::Ansi16 => match role.colour(depth) {
                    Color::Blue | Color::DarkGray => Color::White,
                    _ => Color::Black,
                },
                _ => paint(role.rgb().ink(), Color::Reset, depth),
            };
            Style::new().bg(role.colour(depth)).fg(ink)
        };
        let background = c.background.colour(depth);
        let selection = if mono {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            Style::new().bg(c.selection.colour(depth))
        };
        Theme {
            name: self.name.clone(),
            label: self.label.clone(),
            depth,
            ramp: Ramp::new(self.ramp, self.reverse, depth),
            gaps: Ramp::diverging(c.background.rgb().raised(), depth),
            base: fg(&c.text).bg(background),
            muted: plain(fg(&c.muted), Modifier::DIM),
            faint: plain(fg(&c.faint), Modifier::DIM),
            border: plain(fg(&c.border), Modifier::DIM),
            focus: plain(fg(&c.focus), Modifier::BOLD),
            title: fg(&c.text).add_modifier(Modifier::BOLD),
            accent: plain(fg(&c.accent), Modifier::BOLD),
            prompt: fg(&c.prompt),
            good: fg(&c.good),
            warn: plain(fg(&c.warn), Modifier::BOLD),
            error: plain(fg(&c.error), Modifier::BOLD),
            frame: plain(fg(&c.cursor), Modifier::BOLD),
            cursor: on(&c.cursor).add_modifier(Modifier::BOLD),
            selection,
            bar: fg(&c.bar),
            curve: fg(&c.curve),
            mean: plain(fg(&c.mean), Modifier::DIM),
            null: fg(&c.null),
        }
    }
}

impl Role {
    fn rgb(&self) -> Rgb {
        Rgb::parse(&self.0).unwrap_or(Rgb::WHITE)
    }

    fn colour(&self, depth: Depth) -> Color {
        paint(self.rgb(), self.1.parse().unwrap_or(Color::Reset), depth)
    }
}

impl Roles {
    fn all(&self) -> [&Role; 17] {
        [
            &self.background,
            &self.text,
            &self.muted,
            &self.faint,
            &self.border,
            &self.focus,
            &self.accent,
            &self.prompt,
            &self.good,
            &self.warn,
            &self.error,
            &self.cursor,
            &self.selection,
            &self.bar,
            &self.curve,
            &self.mean,
            &self.null,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_theme_is_readable() {
        let (themes, problems) = ThemeFile::all(None);
        assert!(problems.is_empty(), "{problems:?}");
        let names: Vec<_> = themes.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["dark", "light", "colourblind"]);
        for theme in &themes {
            let c = &theme.colours;
            let ground = c.background.rgb();
            for (name, role) in [
                ("text", &c.text),
                ("muted", &c.muted),
                ("focus", &c.focus),
                ("accent", &c.accent),
                ("prompt", &c.prompt),
                ("good", &c.good),
                ("warn", &c.warn),
                ("error", &c.error),
            ] {
                let on_ground = role.rgb().contrast(ground);
                assert!(on_ground >= 4.5, "{} {name}: {on_ground:.2}", theme.name);
            }
            let chosen = c.text.rgb().contrast(c.selection.rgb());
            assert!(chosen >= 4.5, "{} selection: {chosen:.2}", theme.name);
            let cursor = c.cursor.rgb().contrast(c.cursor.rgb().ink());
            assert!(cursor >= 4.5, "{} cursor: {cursor:.2}", theme.name);
        }
    }

    #[test]
    fn a_broken_user_theme_is_named_and_left_out() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("themes")).unwrap();
        let path = folder.path().join("themes/mine.toml");
        std::fs::write(&path, BUILT_IN[0].replace("#0e1116", "ink")).unwrap();
        let (themes, problems) = ThemeFile::all(Some(folder.path()));
        assert_eq!(themes.len(), 3);
        let message = problems[0].to_string();
        assert!(
            message.contains("mine.toml") && message.contains("`ink`"),
            "{message}"
        );

        std::fs::write(
            &path,
            BUILT_IN[0].replace("name = \"dark\"", "name = \"mine\""),
        )
        .unwrap();
        let (themes, problems) = ThemeFile::all(Some(folder.path()));
        assert!(problems.is_empty());
        assert_eq!(themes.last().unwrap().name, "mine");
    }

    #[test]
    fn without_colour_no_style_has_one() {
        let theme = ThemeFile::all(None).0[0].fit(Depth::Mono);
        for style in [theme.base, theme.accent, theme.cursor, theme.selection] {
            assert!(matches!(style.fg, None | Some(Color::Reset)));
            assert!(matches!(style.bg, None | Some(Color::Reset)));
        }
        assert!(theme.cursor.add_modifier.contains(Modifier::REVERSED));
    }
}
