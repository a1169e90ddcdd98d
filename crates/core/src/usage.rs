//! Token usage and what it costs.

/// Tokens of one answer, as the upstream reported them or, where it reported no
/// `input` or `output`, as they were counted here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input (prompt) tokens, including `cached`.
    pub input: u64,
    /// Output (completion) tokens, including `reasoning`.
    pub output: u64,
    /// The upstream's own total; 0 when it gave none.
    pub total: u64,
    /// Input tokens read from the provider's prompt cache, a part of `input`.
    pub cached: u64,
    /// Output tokens spent on reasoning, a part of `output`.
    pub reasoning: u64,
    /// Tokens written to the provider's prompt cache, counted beside `input`.
    pub cache_creation: u64,
    /// Tokens read from the provider's prompt cache, counted beside `input`.
    pub cache_read: u64,
}

impl Usage {
    /// Whether input and output are both known.
    pub fn is_complete(&self) -> bool {
        self.input > 0 && self.output > 0
    }

    /// Everything that was processed: input, output and the cache counters
    /// that are not already a part of the input.
    pub fn processed(&self) -> u64 {
        // Upstreams may report anything.
        let parts = [self.input, self.output, self.cache_creation, self.cache_read];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    /// The total to show: the upstream's, else the sum.
    pub fn total_or_sum(&self) -> u64 {
        if self.total > 0 { self.total } else { self.processed() }
    }
}

/// Price of a model in US dollars per 1,000 tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// USD per 1,000 input tokens.
    pub input_per_1k: f64,
    /// USD per 1,000 output tokens.
    pub output_per_1k: f64,
}

impl Price {
    /// Cost in micro-USD, rounded to the nearest one.
    pub fn micro_usd(&self, usage: &Usage) -> u64 {
        let input = usage.input.saturating_add(usage.cache_creation).saturating_add(usage.cache_read);
        let usd = (input as f64 * self.input_per_1k + usage.output as f64 * self.output_per_1k) / 1e3;
        (usd * 1e6).round().max(0.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_rounded_to_micro_usd() {
        let price = Price { input_per_1k: 0.0025, output_per_1k: 0.01 };
        let usage = Usage { input: 1000, output: 500, ..Usage::default() };
        assert_eq!(price.micro_usd(&usage), 7_500);
    }

    #[test]
    fn total_prefers_the_upstream() {
        let usage = Usage { input: 5, output: 3, total: 9, ..Usage::default() };
        assert_eq!(usage.total_or_sum(), 9);
        assert_eq!(Usage { total: 0, ..usage }.total_or_sum(), 8);
        assert_eq!(Usage { input: u64::MAX, total: 0, ..usage }.total_or_sum(), u64::MAX);
    }

    #[test]
    fn usage_is_complete_with_input_and_output() {
        let usage = Usage { input: 5, output: 3, ..Usage::default() };
        assert!(usage.is_complete());
        assert!(!Usage { input: 0, ..usage }.is_complete() && !Usage { output: 0, ..usage }.is_complete());
    }
}
