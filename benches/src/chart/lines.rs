//! Lines over a logarithmic axis, from zero upwards.

use std::fmt;

use super::{LEFT, STYLE, WIDTH, escaped, text};

/// Lines and what they stand for.
#[derive(Clone, Debug)]
pub struct LineChart {
    /// What is shown.
    pub title: String,
    /// Unit and direction, as in "ns per packet, less is better".
    pub subtitle: String,
    /// Where the figures come from.
    pub source: String,
    /// What the horizontal axis counts.
    pub axis: String,
    /// In the order of the legend.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// In the legend.
    pub label: String,
    /// Its looks.
    pub stroke: Stroke,
    /// Places, from 0 up and whole, and values, none negative.
    pub points: Vec<(f64, f64)>,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// Dashed: what is measured against.
    Floor,
    /// In one of the colours, with filled points.
    Filled(usize),
    /// In one of the colours, with rings.
    Rings(usize),
}

const COLOURS: [&str; 4] = ["#2f81f7", "#2da44e", "#d29922", "#a371f7"];
const PLOT_LEFT: f64 = 60.0;
const PLOT_RIGHT: f64 = 640.0;
const PLOT_TOP: f64 = 70.0;
const PLOT_BOTTOM: f64 = 370.0;
const HEIGHT: f64 = 440.0;
const LEGEND: f64 = 668.0;
const LEGEND_ROW: f64 = 22.0;
/// Lines across, at most.
const STEPS: f64 = 6.0;

impl LineChart {
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines.iter().flat_map(|line| line.points.iter().copied())
    }

    /// Where a place is between 0 and 1. Zero, which has no logarithm, stands one power of ten before the first.
    fn across(&self, place: f64) -> f64 {
        let positive = || self.points().map(|point| point.0).filter(|place| *place > 0.0);
        let (least, most) =
            (positive().fold(f64::INFINITY, f64::min).log10(), positive().fold(1.0, f64::max).log10());
        let first = if self.points().any(|point| point.0 == 0.0) { least - 1.0 } else { least };
        let at = if place > 0.0 { place.log10() } else { first };
        if most > first { (at - first) / (most - first) } else { 0.5 }
    }

    fn x(&self, place: f64) -> f64 {
        PLOT_LEFT + 10.0 + self.across(place) * (PLOT_RIGHT - PLOT_LEFT - 20.0)
    }

    fn y(&self, value: f64) -> f64 {
        PLOT_BOTTOM - value / self.top() * (PLOT_BOTTOM - PLOT_TOP)
    }

    /// The highest line across.
    fn top(&self) -> f64 {
        let most = self.points().map(|point| point.1).fold(0.0, f64::max).max(1e-3);
        let step = step(most);
        (most / step).ceil() * step
    }
}

/// A round distance of which few reach up to `most`.
fn step(most: f64) -> f64 {
    let power = 10f64.powf((most / STEPS).log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    factors.into_iter().map(|factor| factor * power).find(|step| most / step <= STEPS).unwrap_or(most)
}

/// A whole number as short as can be: 10 k, 1 M.
pub fn short(number: f64) -> String {
    match number {
        _ if number >= 1e6 => format!("{} M", number / 1e6),
        _ if number >= 1e4 || number == 1e3 => format!("{} k", number / 1e3),
        _ => format!("{number}"),
    }
}

impl fmt::Display for LineChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n\
             <title>{}</title>\n<style>\n{STYLE}.grid {{ stroke: #8b949e; stroke-opacity: .3; }} \
             polyline {{ fill: none; stroke-width: 2; }} .end {{ text-anchor: end; }} .mid {{ text-anchor: middle; }}\n</style>",
            escaped(&self.title)
        )?;
        text(f, "title", LEFT, 26.0, &self.title)?;
        text(f, "quiet", LEFT, 46.0, &self.subtitle)?;
        self.axes(f)?;
        for (index, line) in self.lines.iter().enumerate() {
            self.line(f, line)?;
            let y = PLOT_TOP + 6.0 + index as f64 * LEGEND_ROW;
            polyline(f, line.stroke, &[(LEGEND, y), (LEGEND + 26.0, y)])?;
            text(f, "", LEGEND + 36.0, y + 4.0, &line.label)?;
        }
        text(f, "quiet", LEFT, HEIGHT - 12.0, &self.source)?;
        writeln!(f, "</svg>")
    }
}

impl LineChart {
    fn axes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (top, step) = (self.top(), step(self.top()));
        for value in (0..).map(|i| f64::from(i) * step).take_while(|value| *value <= top * 1.001) {
            let y = self.y(value);
            writeln!(
                f,
                "<line class=\"grid\" x1=\"{PLOT_LEFT}\" x2=\"{PLOT_RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            )?;
            text(f, "quiet end", PLOT_LEFT - 6.0, y + 4.0, &short(value))?;
        }
        let mut places: Vec<u64> = self.points().map(|point| point.0 as u64).collect();
        places.sort_unstable();
        places.dedup();
        for place in places {
            text(f, "quiet mid", self.x(place as f64), PLOT_BOTTOM + 18.0, &short(place as f64))?;
        }
        text(f, "quiet mid", f64::midpoint(PLOT_LEFT, PLOT_RIGHT), PLOT_BOTTOM + 38.0, &self.axis)
    }

    fn line(&self, f: &mut fmt::Formatter<'_>, line: &Line) -> fmt::Result {
        let points: Vec<_> =
            line.points.iter().map(|&(place, value)| (self.x(place), self.y(value))).collect();
        polyline(f, line.stroke, &points)
    }
}

fn polyline(f: &mut fmt::Formatter<'_>, stroke: Stroke, points: &[(f64, f64)]) -> fmt::Result {
    let list: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let (colour, dashes) = match stroke {
        Stroke::Floor => ("#8b949e", " stroke-dasharray=\"6 4\""),
        Stroke::Filled(colour) | Stroke::Rings(colour) => (COLOURS[colour % COLOURS.len()], ""),
    };
    writeln!(f, "<polyline points=\"{}\" stroke=\"{colour}\"{dashes}/>", list.join(" "))?;
    let fill = match stroke {
        Stroke::Floor => return Ok(()),
        Stroke::Filled(_) => colour,
        Stroke::Rings(_) => "none",
    };
    for (x, y) in points {
        writeln!(
            f,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{fill}\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)]) -> LineChart {
        let line = |stroke| Line { label: "a < b".to_owned(), stroke, points: points.to_vec() };
        LineChart {
            title: "title".to_owned(),
            subtitle: String::new(),
            source: String::new(),
            axis: "flows".to_owned(),
            lines: vec![line(Stroke::Floor), line(Stroke::Filled(0)), line(Stroke::Rings(1))],
        }
    }

    #[test]
    fn places_are_logarithmic_and_zero_has_one() {
        let check = |places: &[f64], expected: &[f64]| {
            let points: Vec<_> = places.iter().map(|place| (*place, 1.0)).collect();
            let chart = chart(&points);
            let across: Vec<_> = places.iter().map(|place| chart.across(*place)).collect();
            assert!(across.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{places:?}: {across:?}");
        };
        check(&[1e3, 1e5, 1e6, 1e7], &[0.0, 0.5, 0.75, 1.0]);
        check(&[0.0, 100.0, 1000.0, 10_000.0], &[0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]);
        check(&[5.0], &[0.5]);
    }

    #[test]
    fn the_top_is_round_and_above_all() {
        for (most, top) in [(19.3, 20.0), (20.0, 20.0), (20.1, 25.0), (104.0, 120.0), (0.7, 0.8)] {
            let found = chart(&[(1.0, most)]).top();
            assert!((found - top).abs() < 1e-9, "{most}: {found}");
        }
    }

    #[test]
    fn every_point_has_its_mark_but_the_floors() {
        let svg = chart(&[(1.0, 2.0), (10.0, 3.0)]).to_string();
        // Two lines of two points, and two in the legend.
        assert_eq!((svg.matches("<circle").count(), svg.matches("<polyline").count()), (8, 6));
        assert!(svg.contains("a &lt; b") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in
            [(0.0, "0"), (256.0, "256"), (1e3, "1 k"), (4096.0, "4096"), (1e5, "100 k"), (1e7, "10 M")]
        {
            assert_eq!(short(number), text);
        }
    }
}
