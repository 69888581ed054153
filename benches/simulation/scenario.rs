//! The run times of simulated jobs.

use std::f64::consts::{SQRT_2, TAU};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

/// The distribution of run times, from the first job to the last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scenario {
    /// All take the same time.
    Constant,
    /// A median of 30 s; one in six takes less than 18 s, one in six more than 50 s.
    Lognormal,
    /// Seven in ten take about 10 s, the others about a minute.
    Bimodal,
    /// The median grows from 20 s to 60 s, a little with each job.
    Drifting,
}

/// A lognormal component of a scenario.
#[derive(Debug, Clone, Copy)]
struct Part {
    weight: f64,
    /// In seconds.
    median: f64,
    /// The standard deviation of the logarithm.
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

    /// Draws the run times of the jobs of one run, in seconds.
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

    /// Returns the probability that a job takes longer than `age` seconds.
    pub(crate) fn survival(self, job: usize, age: f64) -> f64 {
        let survival = |part: &Part| {
            if age <= 0.0 {
                1.0
            } else if part.deviation > 0.0 {
                libm::erfc((age / part.median).ln() / part.deviation / SQRT_2) / 2.0
            } else {
                f64::from(u8::from(age < part.median))
            }
        };
        let parts = self.parts(job);
        parts.iter().map(|part| part.weight * survival(part)).sum()
    }

    /// Returns whether the distribution changes from job to job.
    pub(crate) fn changes(self) -> bool {
        self == Self::Drifting
    }
}

/// Draws from the standard normal distribution (Box–Muller).
pub(crate) fn normal(random: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (TAU * random.random::<f64>()).cos()
}
