//! Pieces of SVG, as text.

use std::fmt::Display;

/// Text that may stand in a page.
pub fn text(raw: &str) -> String {
    let mut safe = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// For which pages a picture is drawn. Each is drawn twice, so that its words stay readable and
/// nothing is cut off; the page shows the one that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// A window.
    Wide,
    /// A telephone, or half of a window.
    Narrow,
}

impl Page {
    /// Both.
    pub const ALL: [Page; 2] = [Page::Wide, Page::Narrow];

    /// How wide a picture is.
    pub fn width(self) -> f64 {
        if self == Page::Wide { 960.0 } else { 440.0 }
    }

    fn class(self) -> &'static str {
        if self == Page::Wide { "wide" } else { "narrow" }
    }
}

/// A picture of that height, which shrinks with the page.
pub fn picture(page: Page, height: f64, title: &str, content: &str) -> String {
    format!(
        "<svg class=\"{}\" viewBox=\"0 0 {:.0} {height:.0}\" role=\"img\" aria-label=\"{}\">\n{content}</svg>\n",
        page.class(),
        page.width(),
        text(title)
    )
}

/// Words at a place; `class` says how they look and which end they begin at.
pub fn words(x: f64, y: f64, class: &str, words: impl Display) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>\n",
        text(&words.to_string())
    )
}

/// A straight line.
pub fn line(from: (f64, f64), to: (f64, f64), class: &str) -> String {
    format!(
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" class=\"{class}\"/>\n",
        from.0, from.1, to.0, to.1
    )
}

/// A box with round corners, and what it says when pointed at.
pub fn block(at: (f64, f64), size: (f64, f64), class: &str, hint: &str) -> String {
    format!(
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"4\" class=\"{class}\"><title>{}</title></rect>\n",
        at.0,
        at.1,
        size.0.max(0.0),
        size.1,
        text(hint)
    )
}

/// A line through points.
pub fn path(points: &[(f64, f64)], class: &str, hint: &str) -> String {
    let steps: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    format!(
        "<path d=\"M {}\" class=\"{class}\"><title>{}</title></path>\n",
        steps.join(" L "),
        text(hint)
    )
}
