//! The trade between polls and lateness.

/// How often jobs were asked for, and how long after their end that was found, in seconds: of one job, or
/// on the average of many.
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

/// What can be had: more polls, less lateness.
#[derive(Debug, Clone)]
pub(crate) struct Curve(Vec<Point>);

impl Curve {
    /// The curve through these points. One that is worse in both than another is left out: who could
    /// have had the other would not take it.
    pub(crate) fn of(mut points: Vec<Point>) -> Self {
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

    /// The lateness to be had for so many polls; `None` where the curve begins with more. More polls than
    /// its last point has do no harm.
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

    /// The polls that it takes to be as little late; `None` where the curve does not come so low.
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
