//! Charts as SVG text: bars here, lines in [`lines`]. Written by hand because it is a page of code, and because a chart that follows the
//! reader's light or dark background needs CSS, which plotting crates do not write.

pub mod lines;

use std::fmt;

/// Groups of horizontal bars.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What is shown.
    pub title: String,
    /// Unit and direction, as in "packets/s, more is better".
    pub subtitle: String,
    /// Where the figures come from.
    pub source: String,
    /// How lengths follow from values.
    pub scale: Scale,
    /// From top to bottom.
    pub groups: Vec<Group>,
}

/// How the length of a bar follows from its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero.
    Linear,
    /// From a power of ten below the least value.
    Logarithmic,
}

/// Bars under one heading.
#[derive(Clone, Debug)]
pub struct Group {
    /// The heading.
    pub label: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Before it.
    pub label: String,
    /// Its length, not negative.
    pub value: f64,
    /// Behind it.
    pub text: String,
    /// Its colour.
    pub colour: Colour,
}

/// What a bar stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// What is measured against.
    Floor,
    /// Ours.
    Shunt,
    /// Anything else.
    Other,
}

const WIDTH: f64 = 860.0;
const LABELS: f64 = 200.0;
const BARS: f64 = 520.0;
const LEFT: f64 = 16.0;
const TITLE: f64 = 64.0;
const HEADING: f64 = 30.0;
const ROW: f64 = 22.0;
const BAR: f64 = 15.0;
const FOOT: f64 = 34.0;

/// Colours that stand out from white and from black alike; only the text changes.
const STYLE: &str = "\
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #1f2328; }
.title { font-size: 17px; font-weight: 600; }
.heading { font-weight: 600; }
.quiet { font-size: 11px; fill: #656d76; }
.floor { fill: #8b949e; } .shunt { fill: #2f81f7; } .other { fill: #d29922; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .quiet { fill: #9198a1; } }
";

impl Chart {
    fn bars(&self) -> impl Iterator<Item = &Bar> {
        self.groups.iter().flat_map(|group| &group.bars)
    }

    fn height(&self) -> f64 {
        let rows = self.bars().count() as f64 * ROW;
        TITLE + self.groups.len() as f64 * HEADING + rows + FOOT
    }

    /// Pixels of a value.
    fn length(&self, value: f64) -> f64 {
        let most = self.bars().map(|bar| bar.value).fold(0.0, f64::max);
        let share = match self.scale {
            Scale::Linear => value / most,
            Scale::Logarithmic => {
                let positive = self.bars().map(|bar| bar.value).filter(|value| *value > 0.0);
                let least = 10f64.powf((positive.fold(most, f64::min) * 0.999).log10().floor());
                (value / least).log10() / (most / least).log10()
            }
        };
        if share.is_finite() { share.clamp(0.0, 1.0) * BARS } else { 0.0 }
    }
}

impl fmt::Display for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let height = self.height();
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
             <title>{}</title>\n<style>\n{STYLE}</style>",
            escaped(&self.title)
        )?;
        text(f, "title", LEFT, 26.0, &self.title)?;
        text(f, "quiet", LEFT, 46.0, &self.subtitle)?;
        let mut y = TITLE;
        for group in &self.groups {
            text(f, "heading", LEFT, y + 18.0, &group.label)?;
            y += HEADING;
            for bar in &group.bars {
                self.row(f, bar, y)?;
                y += ROW;
            }
        }
        text(f, "quiet", LEFT, y + 22.0, &self.source)?;
        writeln!(f, "</svg>")
    }
}

impl Chart {
    fn row(&self, f: &mut fmt::Formatter<'_>, bar: &Bar, y: f64) -> fmt::Result {
        let length = self.length(bar.value);
        let class = match bar.colour {
            Colour::Floor => "floor",
            Colour::Shunt => "shunt",
            Colour::Other => "other",
        };
        text(f, "", LEFT, y + 12.0, &bar.label)?;
        writeln!(
            f,
            "<rect class=\"{class}\" x=\"{LABELS}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>"
        )?;
        text(f, "", LABELS + length + 6.0, y + 12.0, &bar.text)
    }
}

fn text(f: &mut fmt::Formatter<'_>, class: &str, x: f64, y: f64, text: &str) -> fmt::Result {
    writeln!(f, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(text))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(scale: Scale, values: &[f64]) -> Chart {
        let bar = |&value: &f64| Bar {
            label: "a < b & c".to_owned(),
            value,
            text: value.to_string(),
            colour: Colour::Shunt,
        };
        Chart {
            title: "title".to_owned(),
            subtitle: String::new(),
            source: String::new(),
            scale,
            groups: vec![Group { label: String::new(), bars: values.iter().map(bar).collect() }],
        }
    }

    #[test]
    fn lengths_follow_the_scale() {
        let check = |scale, values: &[f64], expected: &[f64]| {
            let chart = chart(scale, values);
            let lengths: Vec<f64> = values.iter().map(|value| chart.length(*value) / BARS).collect();
            let close = lengths.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
            assert!(close && lengths.len() == expected.len(), "{scale:?} {values:?}: {lengths:?}");
        };
        check(Scale::Linear, &[0.0, 5.0, 10.0], &[0.0, 0.5, 1.0]);
        check(Scale::Linear, &[0.0], &[0.0]);
        check(Scale::Logarithmic, &[20.0, 100.0, 1000.0], &[2f64.log10() / 2.0, 0.5, 1.0]);
        // The least value, a power of ten itself, still has a bar.
        check(Scale::Logarithmic, &[10.0, 100.0], &[0.5, 1.0]);
    }

    #[test]
    fn labels_do_not_end_the_markup() {
        let svg = chart(Scale::Linear, &[1.0, 2.0]).to_string();
        assert!(svg.contains("a &lt; b &amp; c") && !svg.contains("a < b"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 2);
    }
}
