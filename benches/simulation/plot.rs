//! Draws the curves.

use std::path::Path;

use plotters::{
    coord::Shift,
    element::DashedPathElement,
    prelude::*,
    style::{
        FontTransform,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::curve::{Curve, Point};

/// Curves, and the points of clients without a parameter.
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) curves: Vec<(&'static str, Curve)>,
    pub(crate) points: Vec<(&'static str, Point)>,
    /// The point of the first curve at the default poll cost.
    pub(crate) default: Point,
}

const COLORS: [RGBColor; 3] = [
    RGBColor(0x24, 0x56, 0xd6),
    RGBColor(0x59, 0x61, 0x73),
    RGBColor(0xb8, 0x6a, 0x00),
];
const INK: RGBColor = RGBColor(0x1c, 0x22, 0x30);
const GRID: RGBColor = RGBColor(0xd9, 0xdc, 0xe3);
const RIVAL: RGBColor = RGBColor(0xb3, 0x26, 0x1e);

type DrawError = Box<dyn std::error::Error>;

/// Draws the charts into an SVG, two in a row.
pub(crate) fn draw(charts: &[Chart], to: &Path) -> Result<(), DrawError> {
    let rows = charts.len().div_ceil(2);
    let root = SVGBackend::new(to, (960, 330 * rows as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    for (chart, area) in charts.iter().zip(root.split_evenly((rows, 2))) {
        draw_one(chart, &area)?;
    }
    root.present()?;
    Ok(())
}

fn draw_one(chart: &Chart, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), DrawError> {
    let mut context = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", 17, &INK))
        .margin(14)
        .x_label_area_size(38)
        .y_label_area_size(48)
        .build_cartesian_2d((0.9_f64..60.0).log_scale(), (0.4_f64..32.0).log_scale())?;
    let small = ("sans-serif", 12, &INK);
    context
        .configure_mesh()
        .x_desc("polls per job")
        .y_desc("seconds from the end to the poll that finds it")
        .x_labels(8)
        .y_labels(8)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style(small)
        .axis_desc_style(small)
        .draw()?;
    for ((name, curve), color) in chart.curves.iter().zip(COLORS) {
        let points = curve.points().iter().map(|point| (point.polls, point.late));
        let is_solid = color == COLORS[0];
        let drawn = if is_solid {
            context.draw_series(LineSeries::new(points, color.stroke_width(2)))?
        } else {
            let dashed = DashedPathElement::new(points, 5, 4, color.stroke_width(2));
            context.draw_series(std::iter::once(dashed))?
        };
        let (dash, gap) = if is_solid { (18, 0) } else { (5, 4) };
        drawn.label(*name).legend(move |(x, y)| {
            DashedPathElement::new([(x, y), (x + 18, y)], dash, gap, color.stroke_width(2))
        });
    }
    let default = (chart.default.polls, chart.default.late);
    context.draw_series([EmptyElement::at(default)
        + Circle::new((0, 0), 4, COLORS[0].filled())
        + Text::new(
            "by default",
            (8, -12),
            ("sans-serif", 12).into_font().color(&COLORS[0]),
        )])?;
    let label = ("sans-serif", 12)
        .into_font()
        .transform(FontTransform::None)
        .color(&RIVAL)
        .pos(Pos::new(HPos::Right, VPos::Bottom));
    context.draw_series(chart.points.iter().map(|(name, point)| {
        EmptyElement::at((point.polls, point.late))
            + TriangleMarker::new((0, 0), 5, RIVAL.filled())
            + Text::new((*name).to_owned(), (-5, -4), label.clone())
    }))?;
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(small)
        .border_style(GRID)
        .background_style(WHITE.mix(0.9))
        .draw()?;
    Ok(())
}

fn number(number: &f64) -> String {
    format!("{number}")
}
