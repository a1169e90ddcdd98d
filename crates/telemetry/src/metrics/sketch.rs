//! Summaries: sum and count for ever, quantiles over the last one to two
//! minutes from sparse logarithmic buckets.
//!
//! Bucket `i` holds the values in `(MIN·γ^(i-1), MIN·γ^i]`, and every value in
//! it is at most [`ACCURACY`] away from its representative, relative to the
//! value itself. A series only stores the buckets it has seen.

use std::collections::BTreeMap;

/// Largest relative error of a quantile.
const ACCURACY: f64 = 0.015;
const GAMMA: f64 = (1.0 + ACCURACY) / (1.0 - ACCURACY);
/// Smallest value, in seconds, that is told apart from smaller ones.
const MIN: f64 = 1e-6;
/// A window covers the current and the previous span of this many seconds.
pub(crate) const SPAN_SECS: u64 = 60;

/// One series of a summary.
#[derive(Default)]
pub(crate) struct Summary {
    count: u64,
    sum: f64,
    epoch: u32,
    current: Window,
    previous: Window,
}

/// The values of one span of time.
#[derive(Default)]
struct Window {
    /// Bucket and count, sorted by bucket.
    buckets: Vec<(u16, u32)>,
    min: f64,
    max: f64,
}

impl Summary {
    pub(crate) fn observe(&mut self, seconds: f64, epoch: u32) {
        self.rotate(epoch);
        self.count += 1;
        self.sum += seconds;
        self.current.observe(seconds);
    }

    /// Forgets the spans that have passed.
    fn rotate(&mut self, epoch: u32) {
        match epoch.saturating_sub(self.epoch) {
            0 => return,
            1 => self.previous = std::mem::take(&mut self.current),
            _ => {
                self.previous = Window::default();
                self.current = Window::default();
            }
        }
        self.epoch = epoch;
    }

    /// Adds this series to a view, as of `epoch`.
    pub(crate) fn fold_into(&mut self, view: &mut View, epoch: u32) {
        self.rotate(epoch);
        view.count += self.count;
        view.sum += self.sum;
        for window in [&self.previous, &self.current] {
            if !window.buckets.is_empty() {
                view.extend(window.min, window.max);
            }
            for (bucket, count) in &window.buckets {
                *view.buckets.entry(*bucket).or_default() += u64::from(*count);
            }
        }
    }
}

impl Window {
    fn observe(&mut self, seconds: f64) {
        if self.buckets.is_empty() {
            (self.min, self.max) = (seconds, seconds);
        }
        self.min = self.min.min(seconds);
        self.max = self.max.max(seconds);
        let bucket = bucket(seconds);
        match self.buckets.binary_search_by_key(&bucket, |(b, _)| *b) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(1),
            Err(at) => self.buckets.insert(at, (bucket, 1)),
        }
    }
}

fn bucket(seconds: f64) -> u16 {
    // The cast saturates: tiny, negative and absurd values meet the ends.
    ((seconds / MIN).ln() / GAMMA.ln()).ceil() as u16
}

fn representative(bucket: u16) -> f64 {
    MIN * 2.0 * GAMMA.powi(i32::from(bucket)) / (GAMMA + 1.0)
}

/// Merged summaries, ready to be read.
#[derive(Clone, Default)]
pub(crate) struct View {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    buckets: BTreeMap<u16, u64>,
    min: f64,
    max: f64,
}

impl View {
    fn extend(&mut self, min: f64, max: f64) {
        let empty = self.buckets.is_empty();
        self.min = if empty { min } else { self.min.min(min) };
        self.max = if empty { max } else { self.max.max(max) };
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        if !other.buckets.is_empty() {
            self.extend(other.min, other.max);
        }
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
    }

    /// The values at these ascending quantiles (nearest rank) in the window;
    /// 0 when nothing happened in it.
    pub(crate) fn quantiles<const N: usize>(&self, quantiles: [f64; N]) -> [f64; N] {
        let total: u64 = self.buckets.values().sum();
        let mut buckets = self.buckets.iter();
        let (mut seen, mut value) = (0, 0.0);
        quantiles.map(|quantile| {
            if quantile <= 0.0 || quantile >= 1.0 {
                return if quantile <= 0.0 { self.min } else { self.max };
            }
            let rank = ((quantile * total as f64).ceil() as u64).max(1);
            while seen < rank {
                let Some((bucket, count)) = buckets.next() else {
                    break;
                };
                seen += count;
                value = representative(*bucket).clamp(self.min, self.max);
            }
            value
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUANTILES: [f64; 7] = [0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0];

    fn view(summary: &mut Summary, epoch: u32) -> View {
        let mut view = View::default();
        summary.fold_into(&mut view, epoch);
        view
    }

    proptest! {
        #[test]
        fn quantiles_are_within_two_percent(
            exponents in prop::collection::vec(-5.5f64..4.0, 1..400),
            split in 0usize..400,
        ) {
            let mut values: Vec<f64> = exponents.iter().map(|e| 10f64.powf(*e)).collect();
            // Two series on two workers, over two spans.
            let (mut a, mut b) = (Summary::default(), Summary::default());
            for (i, value) in values.iter().enumerate() {
                let series = if i < split { &mut a } else { &mut b };
                series.observe(*value, if i * 2 < values.len() { 7 } else { 8 });
            }
            let mut merged = view(&mut a, 8);
            merged.merge(&view(&mut b, 8));
            values.sort_by(f64::total_cmp);
            prop_assert_eq!(merged.count, values.len() as u64);
            for (q, got) in QUANTILES.iter().zip(merged.quantiles(QUANTILES)) {
                let rank = ((q * values.len() as f64).ceil() as usize).max(1);
                let exact = values[rank - 1];
                let error = (got - exact).abs() / exact;
                prop_assert!(error <= 0.02, "q{} exact {} got {} error {}", q, exact, got, error);
            }
        }
    }

    #[test]
    fn one_value_is_exact() {
        let mut summary = Summary::default();
        summary.observe(0.123, 0);
        assert_eq!(view(&mut summary, 0).quantiles(QUANTILES), [0.123; 7]);
    }

    #[test]
    fn the_window_moves_and_the_sum_stays() {
        let mut summary = Summary::default();
        summary.observe(1.0, 5);
        assert_eq!(view(&mut summary, 6).quantiles([0.5]), [1.0]);
        summary.observe(3.0, 6);
        assert_eq!(view(&mut summary, 6).quantiles([0.0, 1.0]), [1.0, 3.0]);
        assert_eq!(view(&mut summary, 7).quantiles([0.0, 1.0]), [3.0, 3.0]);
        let late = view(&mut summary, 8);
        assert_eq!(late.quantiles([0.0, 0.5, 1.0]), [0.0; 3]);
        assert_eq!((late.count, late.sum), (2, 4.0));
        assert_eq!(summary.current.buckets.capacity(), 0);
        // A record that was closed a moment before another one rotated.
        summary.observe(2.0, 7);
        assert_eq!(view(&mut summary, 8).quantiles([0.5]), [2.0]);
    }

    #[test]
    fn extremes_do_not_break_it() {
        let mut summary = Summary::default();
        for value in [0.0, 1e-12, 1e300] {
            summary.observe(value, 0);
        }
        assert_eq!(view(&mut summary, 0).quantiles([0.0, 1.0]), [0.0, 1e300]);
    }
}
