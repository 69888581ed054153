//! The trade-off between polls and lateness.

/// The polls of one job and the seconds from its end to the poll that found it, or the means of
/// many jobs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Point {
    pub(crate) polls: f64,
    pub(crate) late: f64,
}

impl Point {
    pub(crate) fn mean(points: &[Self]) -> Self {
        let count = points.len() as f64;
        let sum = |of: fn(&Self) -> f64| points.iter().map(of).sum::<f64>();
        Self {
            polls: sum(|point| point.polls) / count,
            late: sum(|point| point.late) / count,
        }
    }
}

/// The best trade-offs: more polls, less lateness.
#[derive(Debug, Clone)]
pub(crate) struct Curve(Vec<Point>);

impl Curve {
    /// Creates the curve through these points, without those that another point beats in both.
    pub(crate) fn new(mut points: Vec<Point>) -> Self {
        points.sort_by(|a, b| a.polls.total_cmp(&b.polls).then(a.late.total_cmp(&b.late)));
        let mut least = f64::INFINITY;
        points.retain(|point| {
            let is_better = point.late < least;
            least = least.min(point.late);
            is_better
        });
        Self(points)
    }

    pub(crate) fn points(&self) -> &[Point] {
        &self.0
    }

    /// Returns the lateness at this number of polls; `None` if the curve begins with more. Beyond
    /// the last point it stays constant.
    pub(crate) fn late_at(&self, polls: f64) -> Option<f64> {
        let after = self.0.partition_point(|point| point.polls < polls);
        match (self.0[..after].last(), self.0.get(after)) {
            (Some(before), None) => Some(before.late),
            (None, Some(first)) => (first.polls - polls < 1e-9).then_some(first.late),
            (Some(before), Some(next)) => {
                let way = (polls - before.polls) / (next.polls - before.polls);
                Some(before.late + way * (next.late - before.late))
            }
            (None, None) => None,
        }
    }

    /// Returns the polls needed for this lateness; `None` if the curve does not reach it.
    pub(crate) fn polls_for(&self, late: f64) -> Option<f64> {
        let after = self.0.partition_point(|point| point.late > late);
        match (self.0[..after].last(), self.0.get(after)) {
            (_, None) => None,
            (None, Some(first)) => Some(first.polls),
            (Some(before), Some(next)) => {
                let way = (before.late - late) / (before.late - next.late);
                Some(before.polls + way * (next.polls - before.polls))
            }
        }
    }
}
