//! How long simulated jobs take.

use std::f64::consts::{SQRT_2, TAU};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

/// What jobs of one kind are like, from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scenario {
    /// All take the same time.
    Constant,
    /// A median of 30 s; one in six takes less than 18 s, one in six more than 50 s.
    Lognormal,
    /// Seven in ten take about 10 s, the others about a minute.
    Bimodal,
    /// From job to job they take a little longer: the median goes from 20 s to 60 s.
    Drifting,
}

/// One lognormal distribution of those that a scenario is mixed of.
#[derive(Debug, Clone, Copy)]
struct Part {
    weight: f64,
    /// In seconds.
    median: f64,
    /// Of the logarithm.
    deviation: f64,
}

impl Scenario {
    pub(crate) const ALL: [Self; 4] = [
        Self::Constant,
        Self::Lognormal,
        Self::Bimodal,
        Self::Drifting,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Lognormal => "lognormal",
            Self::Bimodal => "bimodal",
            Self::Drifting => "drifting",
        }
    }

    fn parts(self, job: usize) -> Vec<Part> {
        let part = |weight, median, deviation| Part {
            weight,
            median,
            deviation,
        };
        match self {
            Self::Constant => vec![part(1.0, 23.4, 0.0)],
            Self::Lognormal => vec![part(1.0, 30.0, 0.5)],
            Self::Bimodal => vec![part(0.7, 10.0, 0.1), part(0.3, 60.0, 0.1)],
            Self::Drifting => {
                let way = (job as f64 / 250.0).min(1.0);
                vec![part(1.0, 20.0 * 3.0_f64.powf(way), 0.25)]
            }
        }
    }

    /// How long the jobs of one run take, in seconds.
    pub(crate) fn durations(self, jobs: usize, seed: u64) -> Vec<f64> {
        let mut random = StdRng::seed_from_u64(seed);
        let duration = |job| {
            let mut left = random.random::<f64>();
            let parts = self.parts(job);
            let part = parts.iter().find(|part| {
                left -= part.weight;
                left < 0.0
            });
            let part = part.unwrap_or(&parts[0]);
            part.median * (part.deviation * normal(&mut random)).exp()
        };
        (0..jobs).map(duration).collect()
    }

    /// The probability that a job takes longer than so many seconds.
    pub(crate) fn survival(self, job: usize, age: f64) -> f64 {
        let survival = |part: &Part| match part.deviation > 0.0 {
            _ if age <= 0.0 => 1.0,
            false => f64::from(u8::from(age < part.median)),
            true => libm::erfc((age / part.median).ln() / part.deviation / SQRT_2) / 2.0,
        };
        let parts = self.parts(job);
        parts.iter().map(|part| part.weight * survival(part)).sum()
    }

    /// Whether what jobs are like changes from one to the next.
    pub(crate) fn changes(self) -> bool {
        self == Self::Drifting
    }
}

/// A number from the standard normal distribution, by the method of Box and Muller.
pub(crate) fn normal(random: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (TAU * random.random::<f64>()).cos()
}
