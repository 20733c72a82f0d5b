//! What lies over the rooms: lists, the sampling panel, pages, a question.
//!
//! ```text
//!         ╭ Metrics ─────────────────────────────────────────╮
//!         │ ❯ ent▏                                     2 of 31│
//!         │──────────────────────────────────────────────────│
//!         │ Entropy              nats · what the layer …    1 │
//!         ╰──────────────────────────────────────────────────╯
//! ```

use super::put;
use crate::tui::layout::{popup, popup_lines, popup_list, popup_page};
use crate::tui::show;
use crate::tui::state::{Field, List, Overlay, Page, PageLine, Panel, State, page_lines};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::widgets::{Block, BorderType, Clear, Widget};

/// Paint the overlay, if there is one; where the text cursor is, if it is typed into.
pub fn paint(buf: &mut Buffer, state: &State) -> Option<Position> {
    match state.overlay.as_ref()? {
        Overlay::List(list) => Some(paint_list(buf, state, list)),
        Overlay::Sampling(panel) => {
            paint_panel(buf, state, panel);
            None
        }
        Overlay::Steering(panel) => super::steering::paint(buf, state, panel),
        Overlay::Sweep => {
            super::sweep::paint(buf, state);
            None
        }
        Overlay::Page(page) => {
            paint_page(buf, state, page);
            None
        }
        Overlay::ConfirmQuit => {
            paint_question(buf, state);
            None
        }
        Overlay::Search(_) | Overlay::OtherModel(_) => None,
    }
}

/// An empty box with a title; returns what is inside its border.
pub(super) fn window(buf: &mut Buffer, area: Rect, state: &State, title: &str) -> Rect {
    Clear.render(area, buf);
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(state.theme.focus)
        .style(state.theme.base)
        .title(format!(" {title} "))
        .title_style(state.theme.title);
    let inner = block.inner(area);
    block.render(area, buf);
    inner
}

fn paint_list(buf: &mut Buffer, state: &State, list: &List) -> Position {
    let theme = &state.theme;
    let area = popup_list(state.area, list.size());
    let inner = window(buf, area, state, list.title);
    put(buf, inner, 1, 0, "❯ ", theme.accent);
    let query = show::visible(&list.query);
    let x = put(buf, inner, 3, 0, &query, theme.base);
    if query.is_empty() {
        put(buf, inner, 3, 0, "type to filter", theme.muted);
    }
    let matches = list.matches();
    let count = format!("{} of {}", matches.len(), list.items.len());
    put(
        buf,
        inner,
        inner.width.saturating_sub(count.len() as u16 + 1),
        0,
        &count,
        theme.muted,
    );
    let rule: String = std::iter::repeat_n('─', usize::from(inner.width)).collect();
    put(buf, inner, 0, 1, &rule, theme.border);
    let lines = popup_lines(area);
    let top = list.top(usize::from(lines.height));
    // Marks get the columns they need, details what labels leave.
    let wide =
        |f: fn(&crate::tui::state::Item) -> usize| list.items.iter().map(f).max().unwrap_or(0);
    let mark_width = wide(|i| show::columns(&i.mark)).min(18);
    let room = usize::from(lines.width).saturating_sub(mark_width + 4);
    let label_width = wide(|i| show::columns(&i.label))
        .min(room * 3 / 4)
        .max(room / 4);
    for (y, index) in matches
        .iter()
        .skip(top)
        .take(usize::from(lines.height))
        .enumerate()
    {
        let item = &list.items[*index];
        let y = y as u16;
        let chosen = top + usize::from(y) == list.selected.min(matches.len() - 1);
        if chosen {
            let row = Rect {
                y: lines.y + y,
                height: 1,
                ..lines
            };
            buf.set_style(row, theme.selection);
        }
        let x = put(
            buf,
            lines,
            1,
            y,
            &show::pad(&item.label, label_width),
            theme.base_on(chosen),
        );
        let left = room.saturating_sub(label_width + 1);
        put(
            buf,
            lines,
            x + 1,
            y,
            &show::cut(&item.detail, left),
            theme.muted_on(chosen),
        );
        let mark = show::cut(&item.mark, mark_width);
        let x = lines.width.saturating_sub(show::columns(&mark) as u16 + 1);
        put(buf, lines, x, y, &mark, theme.accent_on(chosen));
    }
    if matches.is_empty() {
        put(buf, lines, 1, 0, "Nothing matches.", theme.muted);
    }
    Position::new((inner.x + x).min(inner.right().saturating_sub(1)), inner.y)
}

fn paint_panel(buf: &mut Buffer, state: &State, panel: &Panel) {
    let theme = &state.theme;
    let area = popup(state.area, 72, Field::ALL.len() as u16 + 5);
    let inner = window(buf, area, state, "Sampling");
    for (i, field) in Field::ALL.iter().enumerate() {
        let y = i as u16;
        if y + 3 > inner.height {
            break;
        }
        let chosen = i == panel.row;
        if chosen {
            let row = Rect {
                y: inner.y + y,
                height: 1,
                ..inner
            };
            buf.set_style(row, theme.selection);
        }
        put(buf, inner, 2, y, field.label(), theme.muted_on(chosen));
        let value = match &panel.typed {
            Some(typed) if chosen => format!("{typed}▏"),
            _ => state.settings.show(*field),
        };
        if chosen {
            put(buf, inner, 25, y, "◂", theme.accent_on(true));
            put(buf, inner, 44, y, "▸", theme.accent_on(true));
        }
        put(buf, inner, 27, y, &value, theme.base_on(chosen));
    }
    let help = panel.field().help();
    let y = inner.height.saturating_sub(2);
    put(buf, inner, 2, y, help, theme.muted);
    let running = if state.phase.is_running() {
        "holds from the next token on"
    } else {
        "holds for the next run"
    };
    put(buf, inner, 2, y + 1, running, theme.muted);
}

fn paint_page(buf: &mut Buffer, state: &State, page: &Page) {
    let theme = &state.theme;
    let text = popup_page(state.area);
    let outer = Rect {
        x: text.x - 2,
        y: text.y - 1,
        width: text.width + 4,
        height: text.height + 2,
    };
    window(buf, outer, state, &page.title);
    let lines = page_lines(state, page, usize::from(text.width));
    for (y, line) in lines
        .iter()
        .skip(page.top)
        .take(usize::from(text.height))
        .enumerate()
    {
        let y = y as u16;
        match line {
            PageLine::Heading(heading) => {
                put(buf, text, 0, y, heading, theme.title);
            }
            PageLine::Entry(keys, what) => {
                put(buf, text, 1, y, &show::cut(keys, 20), theme.accent);
                put(buf, text, 23, y, what, theme.base);
            }
            PageLine::Text(words) => {
                put(buf, text, 0, y, words, theme.base);
            }
        }
    }
    let below = lines
        .len()
        .saturating_sub(page.top + usize::from(text.height));
    if below > 0 {
        let more = format!(" ↓ {below} more lines ");
        let x = outer.width.saturating_sub(show::columns(&more) as u16 + 2);
        put(buf, outer, x, outer.height - 1, &more, theme.muted);
    }
}

fn paint_question(buf: &mut Buffer, state: &State) {
    let theme = &state.theme;
    let area = popup(state.area, 50, 5);
    let inner = window(buf, area, state, "Leave?");
    put(
        buf,
        inner,
        2,
        0,
        "A generation is running; it would be lost.",
        theme.base,
    );
    let x = put(buf, inner, 2, 2, "Enter", theme.accent);
    let x = put(buf, inner, x + 1, 2, "leave", theme.muted);
    let x = put(buf, inner, x + 3, 2, "Esc", theme.accent);
    put(buf, inner, x + 1, 2, "stay", theme.muted);
}
