//! Random numbers from a seed, so that a failure can be repeated.

/// Marsaglia's xorshift generator with 64 bits.
pub struct Random(u64);

impl Random {
    /// The numbers that follow from a seed, which is not 0.
    pub fn new(seed: u64) -> Self {
        assert!(seed != 0, "from 0 only 0 follows");
        Self(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % bound
    }

    /// One of the choices.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
