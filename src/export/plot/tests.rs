//! What both outputs of a plot hold, by numbers worked out by hand.

use super::axis::{Axis, every};
use super::heat::Heat;
use super::lines::{Lines, Profile, Series};
use super::*;

fn curves() -> Lines {
    let series = |name: &str, colour, offset: f64, dashed| Series {
        name: name.into(),
        colour,
        dashed,
        n: 3,
        profile: Profile {
            mean: (0..13)
                .map(|l| (l != 4).then_some(8.0 - 0.5 * f64::from(l) + offset))
                .collect(),
            std: vec![Some(0.7); 13],
        },
        samples: vec![(0..13).map(|l| Some(8.2 - 0.4 * f64::from(l))).collect()],
    };
    Lines {
        title: "Entropy by layer <b> & \"more\"".into(),
        subtitle: "demo, \u{1b}[31m sentences".into(),
        label: "entropy (nats)".into(),
        series: vec![
            series("standard", Colour::BLUE, 0.0, false),
            series("control", Colour::RED, 0.6, true),
        ],
        zero: false,
    }
}

fn map() -> Heat {
    let words = ["Once", " upon", "\n", " <a>", " &amp;", "日本", " time"];
    Heat {
        title: "Difference of entropy".into(),
        subtitle: "steered \u{2212} baseline".into(),
        label: "difference (nats)".into(),
        tokens: words.map(str::to_owned).to_vec(),
        rows: (0..13)
            .map(|l| {
                (0..7)
                    .map(|t| (l != 0 || t != 6).then(|| f64::from(l - 6) * 0.2 * f64::from(t)))
                    .collect()
            })
            .collect(),
    }
}

#[test]
fn ticks_are_round_and_lie_on_an_axis_that_holds_the_values() {
    // A range of 2.5 and 3 % of it on both sides.
    let axis = Axis::holding([0.5, 3.0], 6);
    assert!((axis.ends.0 - 0.425).abs() < 1e-12 && (axis.ends.1 - 3.075).abs() < 1e-12);
    assert_eq!(axis.ticks, [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
    assert_eq!(axis.label(0.5), "0.5");
    assert!((axis.share(1.75) - 0.5).abs() < 1e-6);
    // Nothing below 0 where no value is.
    let axis = Axis::holding([0.0, 10.0], 5);
    assert_eq!((axis.ends.0, &axis.ticks[..]), (0.0, &[0.0, 5.0, 10.0][..]));
    let axis = Axis::holding([-0.031, 0.019], 4);
    assert_eq!(axis.ticks, [-0.02, 0.0, 0.02]);
    assert_eq!(axis.label(-0.02), "\u{2212}0.02");
    assert_eq!(axis.label(0.0), "0");
    assert_eq!(Axis::holding([], 4), Axis::holding([0.0, 1.0], 4));
    assert_eq!(
        Axis::holding([f64::NAN, f64::INFINITY], 4),
        Axis::holding([], 4)
    );
    // All equal: the value lies inside.
    let (low, high) = Axis::holding([5.0, 5.0], 4).ends;
    assert!(low < 5.0 && high > 5.0);
    assert_eq!(Axis::holding([0.0, 3e7], 3).label(2e7), "2e7");
    // Neighbours that f64 hardly tells apart, and the largest there are, end.
    assert!(Axis::holding([-1e308, 1e308], 5).ticks.len() < 102);
    assert!(Axis::holding([1.0, 1.0 + 1e-8], 5).ticks.len() < 102);
}

#[test]
fn labels_thin_out() {
    assert_eq!(every(13, 26), 1);
    assert_eq!(every(33, 26), 2);
    assert_eq!(every(81, 26), 5);
    assert_eq!(every(1000, 26), 50);
}

/// A reader of the little XML that we write: every tag is closed in order, every entity known, no bare sign left. The names
/// of the elements, and the text between them.
fn read(xml: &str) -> (Vec<String>, Vec<String>) {
    let (mut open, mut names, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = xml;
    let check = |text: &str| {
        assert!(!text.contains('>'), "{text}");
        for after in text.split('&').skip(1) {
            let entity = after.split(';').next().unwrap();
            assert!(
                ["amp", "lt", "gt", "quot", "#39"].contains(&entity),
                "{text}"
            );
        }
        assert!(
            !text.chars().any(|c| c.is_control() && c != '\n'),
            "{text:?}"
        );
    };
    while let Some(at) = rest.find('<') {
        let (text, tag) = rest.split_at(at);
        check(text);
        if !text.trim().is_empty() {
            texts.push(text.to_owned());
        }
        let end = tag.find('>').expect("an open tag ends");
        let (tag, after) = (&tag[1..end], &tag[end + 1..]);
        check(tag);
        assert!(
            !tag.contains('<') && tag.matches('"').count() % 2 == 0,
            "{tag}"
        );
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
        } else {
            let name = tag.split_whitespace().next().unwrap().trim_end_matches('/');
            names.push(name.to_owned());
            if !tag.ends_with('/') {
                open.push(name.to_owned());
            }
        }
        rest = after;
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(rest.trim().is_empty());
    (names, texts)
}

#[test]
fn svg_is_well_formed_and_says_what_was_said() {
    let text = svg::text(&lines::draw(&curves()));
    let (names, texts) = read(&text);
    let count = |what: &str| names.iter().filter(|name| *name == what).count();
    // Two curves of 12 values each, in two pieces for the gap at layer 4; a band for each piece.
    assert_eq!(count("circle"), 24);
    assert_eq!(count("polygon"), 4);
    let says = |what: &str| assert!(texts.iter().any(|t| t.contains(what)), "{what}: {texts:?}");
    says("Entropy by layer &lt;b&gt; &amp; &quot;more&quot;");
    says("standard (n = 3)");
    says("control (n = 3)");
    says("entropy (nats)");
    says("layer (0 = embedding)");
    assert!(!text.contains('\u{1b}'));
    assert_eq!(svg::text(&lines::draw(&curves())), text);

    let text = svg::text(&heat::draw(&map()));
    let (names, texts) = read(&text);
    // The page, 13 layers of 7 tokens, and 128 steps of the colour bar.
    assert_eq!(
        names.iter().filter(|n| *n == "rect").count(),
        1 + 13 * 7 + 128
    );
    assert!(texts.iter().any(|t| t == "·&lt;a&gt;"), "{texts:?}");
    assert!(texts.iter().any(|t| t.contains("&amp;amp;")), "{texts:?}");
    assert!(texts.iter().any(|t| t.contains("grey: no value")));
    assert!(text.contains("#c9cdd2"), "a cell without value is grey");
}

fn decoded(bytes: &[u8]) -> (u32, u32, Vec<u8>) {
    let decoder = ::png::Decoder::new(std::io::Cursor::new(bytes));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(info.color_type, ::png::ColorType::Rgb);
    pixels.truncate(info.buffer_size());
    (info.width, info.height, pixels)
}

#[test]
fn png_has_the_size_and_the_colours_of_the_drawing() {
    let drawing = lines::draw(&curves());
    let (width, height, pixels) = decoded(&png::bytes(&drawing).unwrap());
    assert_eq!((width, height), (1760, 1080));
    let has = |rgb: [u8; 3]| pixels.chunks(3).filter(|p| *p == rgb).count();
    assert!(has(Colour::BLUE.rgb) > 500, "the first curve is there");
    assert!(has(Colour::RED.rgb) > 500, "and the second");
    assert!(has(Colour::INK.rgb) > 500, "and letters");
    assert!(has([255; 3]) > (width * height / 2) as usize);

    let mut drawing = Drawing::new(10.0, 10.0, "");
    drawing.rect((2.0, 3.0), (4.0, 5.0), Colour::hex(0x10_20_30));
    let (width, height, pixels) = decoded(&png::bytes(&drawing).unwrap());
    assert_eq!((width, height), (20, 20));
    let dark = pixels
        .chunks(3)
        .filter(|p| *p == [0x10, 0x20, 0x30])
        .count();
    assert_eq!(dark, 8 * 10);
    assert_eq!(pixels[3 * (20 * 6 + 4)], 0x10, "its upper left corner");
    assert!(png::bytes(&Drawing::new(0.0, 5.0, "")).is_err());
}

#[test]
fn the_largest_change_has_the_darkest_colour() {
    let text = svg::text(&heat::draw(&map()));
    // 1.2 · 6 at the upper right, and −1.2 · 5 = −6 of it at the lower left: 1/6 of the range from the end, at the second colour
    // and half a step on.
    assert_eq!(text.matches("#b2182b").count(), 1);
    let share = (1.0 - 6.0 / 7.2) / 2.0 * 6.0;
    let mixed = |from: f64, to: f64| (from + (to - from) * share).round() as u8;
    let [r, g, b] = [mixed(33.0, 103.0), mixed(102.0, 169.0), mixed(172.0, 207.0)];
    assert!(text.contains(&format!("#{r:02x}{g:02x}{b:02x}")), "{text}");
}

#[test]
fn letters_are_drawn_where_they_belong() {
    let font = Font::open();
    assert_eq!(font.fitted("short", 10.0, 100.0), "short");
    let cut = font.fitted(&"long ".repeat(40), 10.0, 100.0);
    assert!(cut.ends_with('…') && font.width(&cut, 10.0) <= 100.0);
    assert!(font.width("mm", 10.0) > font.width("ii", 10.0));
    assert_eq!(font.width("mm", 20.0), 2.0 * font.width("mm", 10.0));
    let drawn = |upward: bool| {
        let mut drawing = Drawing::new(40.0, 40.0, "");
        drawing.letters((20.0, 20.0), "HH", 12.0, Anchor::Start, Colour::INK, upward);
        let (width, _, pixels) = decoded(&png::bytes(&drawing).unwrap());
        let dark = pixels.chunks(3).enumerate().filter(|(_, p)| p[0] < 128);
        let at: Vec<(u32, u32)> = dark
            .map(|(i, _)| (i as u32 % width, i as u32 / width))
            .collect();
        let x = at.iter().map(|p| p.0);
        let y = at.iter().map(|p| p.1);
        (x.clone().min(), x.max(), y.clone().min(), y.max())
    };
    let (Some(left), Some(right), Some(top), Some(bottom)) = drawn(false) else {
        panic!("nothing was drawn");
    };
    // Two letters of 12 units, 9 high, to the right of and above the point, at two pixels a unit.
    assert!(left >= 40 && right < 40 + 2 * 19 && right > 40 + 2 * 14);
    assert!(top >= 40 - 2 * 10 && bottom <= 40, "{top} {bottom}");
    let (Some(left), Some(right), Some(top), Some(bottom)) = drawn(true) else {
        panic!("nothing was drawn");
    };
    assert!(right <= 40 && left >= 40 - 2 * 10);
    assert!(bottom <= 40 && top < 40 - 2 * 14);
}

#[test]
fn empty_plots_are_drawn_too() {
    let nothing = Lines {
        series: Vec::new(),
        ..curves()
    };
    read(&svg::text(&lines::draw(&nothing)));
    let nothing = Heat {
        tokens: Vec::new(),
        rows: Vec::new(),
        ..map()
    };
    let drawing = heat::draw(&nothing);
    read(&svg::text(&drawing));
    assert!(png::bytes(&drawing).is_ok());
    let flat = Heat {
        rows: vec![vec![Some(0.0); 7]; 3],
        ..map()
    };
    let text = svg::text(&heat::draw(&flat));
    assert!(
        text.contains("#f7f7f7") || text.contains("#f2efee"),
        "no change is white"
    );
}
