//! Random numbers that a seed repeats, on any machine and in any version: ChaCha with numbered streams.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// A generator of its own for each thing that is drawn: what draws from one stream never shifts another.
pub fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}
