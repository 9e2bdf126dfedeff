//! Zipf-distributed ranks over up to 100 million objects, in constant time and memory.
//!
//! Source: Hörmann and Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions"
//! (ACM TOMACS 1996).

use crate::random::Random;

/// Draws a rank from 0 to `count - 1`, rank `n` with a weight of `1 / (n + 1)^skew`.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    count: f64,
    skew: f64,
    /// The integral of the density up to the first and the last rank, and the width of the sure part of the first.
    low: f64,
    high: f64,
    sure: f64,
}

impl Zipf {
    /// `count` of at least 1, `skew` above 0.
    pub(crate) fn new(count: u32, skew: f64) -> Self {
        let mut zipf = Self {
            count: f64::from(count.max(1)),
            skew,
            low: 0.0,
            high: 0.0,
            sure: 0.0,
        };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(zipf.count + 0.5);
        zipf.sure = 2.0 - zipf.inverse(zipf.integral(2.5) - (2.0_f64).powf(-skew));
        zipf
    }

    pub(crate) fn draw(&self, random: &mut Random) -> u32 {
        loop {
            let u = self.high + random.unit() * (self.low - self.high);
            let x = self.inverse(u);
            let k = x.round().clamp(1.0, self.count);
            if k - x <= self.sure || u >= self.integral(k + 0.5) - k.powf(-self.skew) {
                return k as u32 - 1;
            }
        }
    }

    /// The integral of `x^-skew`, also where `skew` is 1.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        smooth((1.0 - self.skew) * log, f64::exp_m1) * log
    }

    fn inverse(&self, x: f64) -> f64 {
        let t = (x * (1.0 - self.skew)).max(-1.0);
        (smooth(t, f64::ln_1p) * x).exp()
    }
}

/// `f(x) / x` with its limit of 1 at 0, for `exp(x) - 1` and `ln(1 + x)`.
fn smooth(x: f64, f: fn(f64) -> f64) -> f64 {
    if x.abs() > 1e-8 { f(x) / x } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_as_often_as_their_weights_say() {
        for (count, skew) in [(10_u32, 1.0), (1_000, 0.8), (20_000_000, 1.2)] {
            let (zipf, mut random) = (Zipf::new(count, skew), Random::new(3, 0));
            let weights = |n: u32| f64::from(n + 1).powf(-skew);
            let all: f64 = (0..count).map(weights).sum();
            let draws = 200_000;
            let mut seen = [0.0; 5];
            for _ in 0..draws {
                let rank = zipf.draw(&mut random);
                assert!(rank < count);
                if let Some(seen) = seen.get_mut(rank as usize) {
                    *seen += 1.0;
                }
            }
            for (rank, seen) in seen.into_iter().enumerate() {
                let expected = weights(rank as u32) / all * f64::from(draws);
                let off = (seen - expected) / expected.sqrt();
                assert!(
                    off.abs() < 5.0,
                    "{count} {skew}: rank {rank} came {seen} times, not {expected}"
                );
            }
        }
    }

    #[test]
    fn a_single_rank_is_always_drawn() {
        let (zipf, mut random) = (Zipf::new(1, 1.0), Random::new(3, 0));
        assert!((0..100).all(|_| zipf.draw(&mut random) == 0));
    }
}
