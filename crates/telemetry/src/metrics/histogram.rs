//! Histograms with configured edges.

/// Upper edges of the buckets of the two latency histograms, in seconds,
/// finite and ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    /// Edges of `aisix_request_e2e_latency_seconds`.
    pub request_e2e_latency: Vec<f64>,
    /// Edges of `aisix_request_ttft_seconds`.
    pub request_ttft: Vec<f64>,
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            request_e2e_latency: vec![
                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
                420.0, 600.0,
            ],
            request_ttft: vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0],
        }
    }
}

/// One series of a histogram. Takes no memory for buckets before the first
/// observation.
#[derive(Clone, Default)]
pub(crate) struct Histogram {
    /// Observations per bucket, the last one beyond all edges.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    pub(crate) fn observe(&mut self, edges: &[f64], seconds: f64) {
        self.counts.resize(edges.len() + 1, 0);
        self.counts[edges.partition_point(|edge| *edge < seconds)] += 1;
        self.sum += seconds;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    pub(crate) fn sum(&self) -> f64 {
        self.sum
    }

    /// Counts of the observations up to each edge, and of all.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = u64> + '_ {
        self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_include_their_value() {
        let edges = [0.5, 1.0];
        let mut histogram = Histogram::default();
        assert!(histogram.is_empty());
        for value in [0.1, 0.5, 0.50001, 1.0, 7.0] {
            histogram.observe(&edges, value);
        }
        let mut sum = Histogram::default();
        sum.merge(&histogram);
        sum.merge(&histogram);
        assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [2, 4, 5]);
        assert_eq!(sum.cumulative().collect::<Vec<_>>(), [4, 8, 10]);
        assert!((histogram.sum() - 9.10001).abs() < 1e-9);
    }
}
