//! Writes changed cells with as few bytes as they need.
//!
//! ratatui's crossterm backend sends foreground and background whenever either changes; on a 24-bit screen that is 38
//! bytes where 19 do. Over SSH this is what decides the frame rate, so cells are written here; everything else is
//! crossterm's.

use ratatui::backend::{Backend, ClearType, CrosstermBackend, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};
use ratatui::style::{Color, Modifier};
use std::io::{self, Write};
use unicode_width::UnicodeWidthStr as _;

/// A backend for any terminal that reads ANSI escape sequences.
#[derive(Debug)]
pub struct LeanBackend<W: Write> {
    inner: CrosstermBackend<W>,
}

impl<W: Write> LeanBackend<W> {
    /// Write to `writer`, which should be buffered.
    pub fn new(writer: W) -> Self {
        Self {
            inner: CrosstermBackend::new(writer),
        }
    }
}

impl<W: Write> Write for LeanBackend<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Write::flush(&mut self.inner)
    }
}

/// What the terminal writes with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pen {
    fg: Color,
    bg: Color,
    modifier: Modifier,
}

/// The modifiers that are used, with the codes that switch them on.
const MODIFIERS: [(Modifier, u8); 6] = [
    (Modifier::BOLD, 1),
    (Modifier::DIM, 2),
    (Modifier::ITALIC, 3),
    (Modifier::UNDERLINED, 4),
    (Modifier::REVERSED, 7),
    (Modifier::CROSSED_OUT, 9),
];

impl Pen {
    /// The codes that turn this pen into `next`.
    fn change(&mut self, next: Self, out: &mut Vec<u8>) -> io::Result<()> {
        if *self == next {
            return Ok(());
        }
        out.extend_from_slice(b"\x1b[");
        let mut gap = "";
        if !(self.modifier - next.modifier).is_empty() {
            // There is no portable way to take off one modifier alone.
            out.push(b'0');
            gap = ";";
            *self = Self::default();
        }
        for (modifier, code) in MODIFIERS {
            if (next.modifier - self.modifier).contains(modifier) {
                write!(out, "{gap}{code}")?;
                gap = ";";
            }
        }
        for (old, new, base) in [(self.fg, next.fg, 30), (self.bg, next.bg, 40)] {
            if old != new {
                out.extend_from_slice(gap.as_bytes());
                colour(new, base, out)?;
                gap = ";";
            }
        }
        out.push(b'm');
        *self = next;
        Ok(())
    }
}

/// The code of a colour; `base` is 30 for the foreground, 40 for the background.
fn colour(colour: Color, base: u8, out: &mut Vec<u8>) -> io::Result<()> {
    let named = match colour {
        Color::Reset => return write!(out, "{}", base + 9),
        Color::Rgb(r, g, b) => return write!(out, "{};2;{r};{g};{b}", base + 8),
        Color::Indexed(i) => return write!(out, "{};5;{i}", base + 8),
        Color::Black => 0,
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Blue => 4,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::Gray => 7,
        Color::DarkGray => 60,
        Color::LightRed => 61,
        Color::LightGreen => 62,
        Color::LightYellow => 63,
        Color::LightBlue => 64,
        Color::LightMagenta => 65,
        Color::LightCyan => 66,
        Color::White => 67,
    };
    write!(out, "{}", base + named)
}

impl<W: Write> Backend for LeanBackend<W> {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut out = Vec::with_capacity(1 << 14);
        let mut pen = Pen::default();
        let mut at = None;
        for (x, y, cell) in content {
            match at {
                Some((cx, cy)) if (cx, cy) == (x, y) => {}
                Some((_, cy)) if cy == y => write!(out, "\x1b[{}G", x + 1)?,
                _ => write!(out, "\x1b[{};{}H", y + 1, x + 1)?,
            }
            let next = Pen {
                fg: cell.fg,
                bg: cell.bg,
                modifier: cell.modifier,
            };
            pen.change(next, &mut out)?;
            out.extend_from_slice(cell.symbol().as_bytes());
            at = Some((x.saturating_add(cell.symbol().width() as u16), y));
        }
        pen.change(Pen::default(), &mut out)?;
        self.inner.write_all(&out)
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        self.inner.hide_cursor()
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        self.inner.show_cursor()
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        self.inner.get_cursor_position()
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        self.inner.set_cursor_position(position)
    }

    fn clear(&mut self) -> io::Result<()> {
        self.inner.clear()
    }

    fn clear_region(&mut self, region: ClearType) -> io::Result<()> {
        self.inner.clear_region(region)
    }

    fn size(&self) -> io::Result<Size> {
        // Serial lines and some pseudo-terminals have no size; they are shown what every terminal can.
        let size = self.inner.size()?;
        Ok(if size.width == 0 || size.height == 0 {
            Size::new(80, 24)
        } else {
            size
        })
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        self.inner.window_size()
    }

    fn flush(&mut self) -> io::Result<()> {
        Backend::flush(&mut self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::action::Action;
    use crate::tui::colour::Depth;
    use crate::tui::{fixture, state, view};
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::{Terminal, TerminalOptions, Viewport};
    use std::sync::{Arc, Mutex};

    /// A terminal emulator behind a writer.
    #[derive(Clone)]
    struct Emulator(Arc<Mutex<vt100::Parser>>);

    impl Write for Emulator {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().process(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(colour: vt100::Color) -> Color {
        match colour {
            vt100::Color::Default => Color::Reset,
            vt100::Color::Rgb(r, g, b) => Color::Rgb(r, g, b),
            vt100::Color::Idx(i) => match i {
                0 => Color::Black,
                1 => Color::Red,
                2 => Color::Green,
                3 => Color::Yellow,
                4 => Color::Blue,
                5 => Color::Magenta,
                6 => Color::Cyan,
                7 => Color::Gray,
                8 => Color::DarkGray,
                9 => Color::LightRed,
                10 => Color::LightGreen,
                11 => Color::LightYellow,
                12 => Color::LightBlue,
                13 => Color::LightMagenta,
                14 => Color::LightCyan,
                15 => Color::White,
                i => Color::Indexed(i),
            },
        }
    }

    #[test]
    fn an_emulator_shows_what_the_buffer_holds_frame_after_frame() {
        for depth in [Depth::True, Depth::Ansi256, Depth::Ansi16, Depth::Mono] {
            let (width, height) = (120, 36);
            let emulator = Emulator(Arc::new(Mutex::new(vt100::Parser::new(height, width, 0))));
            let viewport = Viewport::Fixed(Rect::new(0, 0, width, height));
            let backend = LeanBackend::new(emulator.clone());
            let options = TerminalOptions { viewport };
            let mut terminal = Terminal::with_options(backend, options).unwrap();
            let mut state = fixture::state(width, height, depth, 20).unwrap();
            for position in 20..60 {
                for event in fixture::drawn(position) {
                    state::update(&mut state, event);
                }
                match position {
                    30 => drop(state::update(&mut state, Action::ZoomIn)),
                    35 => drop(state::update(&mut state, Action::Palette)),
                    40 => drop(state::update(&mut state, Action::Back)),
                    45 => drop(state::update(&mut state, Action::ZoomOut)),
                    50 => drop(state::update(&mut state, Action::MoveDown)),
                    _ => {}
                }
                state.settle();
                terminal.draw(|frame| view::render(frame, &state)).unwrap();
                let mut wanted = Buffer::empty(state.area);
                view::paint(&mut wanted, &state);
                let screen = emulator.0.lock().unwrap().screen().clone();
                for y in 0..height {
                    for x in 0..width {
                        let cell = &wanted[(x, y)];
                        let seen = screen.cell(y, x).unwrap();
                        let symbol = match seen.contents() {
                            "" => " ",
                            symbol => symbol,
                        };
                        let at = format!("{depth:?} frame {position} ({x}, {y})");
                        assert_eq!(symbol, cell.symbol(), "{at}");
                        assert_eq!(shown(seen.fgcolor()), cell.fg, "{at}");
                        assert_eq!(shown(seen.bgcolor()), cell.bg, "{at}");
                        let has = |m| cell.modifier.contains(m);
                        assert_eq!(seen.bold(), has(Modifier::BOLD), "{at}");
                        assert_eq!(seen.underline(), has(Modifier::UNDERLINED), "{at}");
                        assert_eq!(seen.inverse(), has(Modifier::REVERSED), "{at}");
                    }
                }
            }
        }
    }

    #[test]
    fn only_what_changes_is_sent() {
        let mut out = Vec::new();
        let mut pen = Pen::default();
        let to = |pen: &mut Pen, fg, bg, modifier, out: &mut Vec<u8>| {
            out.clear();
            pen.change(Pen { fg, bg, modifier }, out).unwrap();
            String::from_utf8(out.clone()).unwrap()
        };
        let none = Modifier::empty();
        let (red, reset) = (Color::Rgb(9, 8, 7), Color::Reset);
        assert_eq!(to(&mut pen, red, reset, none, &mut out), "\x1b[38;2;9;8;7m");
        assert_eq!(to(&mut pen, red, reset, none, &mut out), "");
        assert_eq!(
            to(&mut pen, red, Color::Blue, Modifier::BOLD, &mut out),
            "\x1b[1;44m"
        );
        assert_eq!(
            to(&mut pen, reset, Color::Blue, none, &mut out),
            "\x1b[0;44m"
        );
        assert_eq!(to(&mut pen, reset, reset, none, &mut out), "\x1b[49m");
    }
}
