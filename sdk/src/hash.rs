//! From a key's bytes to its slot: open addressing, the same on every run and every machine.

/// Finds slots by key. The keys themselves live with the slots.
#[derive(Default)]
pub(crate) struct Index {
    /// Slot numbers, `EMPTY` where there is none; a power of two of them, at most three quarters full.
    buckets: Vec<u32>,
    entries: usize,
}

const EMPTY: u32 = u32::MAX;

/// What a search ends with.
pub(crate) enum Found {
    Slot(u32),
    /// The bucket in which the key belongs.
    Free(usize),
}

impl Index {
    /// Searches a key; `is` compares the key with that of a slot.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Found {
        let mask = self.buckets.len().wrapping_sub(1);
        let mut bucket = hash as usize & mask;
        if self.buckets.is_empty() {
            return Found::Free(0);
        }
        loop {
            match self.buckets[bucket] {
                EMPTY => return Found::Free(bucket),
                slot if is(slot) => return Found::Slot(slot),
                _ => bucket = (bucket + 1) & mask,
            }
        }
    }

    /// Adds a slot that `find` has not found; `hash_of` gives the hash of every slot's key.
    pub(crate) fn insert(&mut self, free: usize, slot: u32, hash_of: impl Fn(u32) -> u64) {
        if self.entries * 4 >= self.buckets.len() * 3 {
            let size = (self.buckets.len() * 2).max(64);
            let old = std::mem::replace(&mut self.buckets, vec![EMPTY; size]);
            for moved in old.into_iter().filter(|slot| *slot != EMPTY).chain([slot]) {
                self.place(hash_of(moved), moved);
            }
        } else {
            self.buckets[free] = slot;
        }
        self.entries += 1;
    }

    fn place(&mut self, hash: u64, slot: u32) {
        let mask = self.buckets.len() - 1;
        let mut bucket = hash as usize & mask;
        while self.buckets[bucket] != EMPTY {
            bucket = (bucket + 1) & mask;
        }
        self.buckets[bucket] = slot;
    }
}

/// A hash in the manner of FxHash: one multiplication for eight bytes, and one to spread them.
#[inline]
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x517c_c1b7_2722_0a95;
    let mut hash = bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(ODD);
    }
    let mut word = [0; 8];
    word[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(ODD);
    (hash ^ (hash >> 32)).wrapping_mul(ODD).rotate_left(20)
}

/// Whether two keys are equal. WebAssembly has no instruction for that: the standard comparison looks at
/// one byte after the other, this one at eight.
#[inline]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let ((words, rest), (other_words, other_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    a.len() == b.len()
        && (words.iter().zip(other_words))
            .all(|(word, other)| u64::from_le_bytes(*word) == u64::from_le_bytes(*other))
        && rest
            .iter()
            .zip(other_rest)
            .all(|(byte, other)| byte == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_same_only_with_every_byte() {
        let key: Vec<u8> = (0..20).collect();
        for length in 0..key.len() {
            assert!(same(&key[..length], &key.clone()[..length]));
            assert!(!same(&key[..length], &key[..length + 1]));
            for changed in 0..length {
                let mut other = key[..length].to_vec();
                other[changed] ^= 0x80;
                assert!(!same(&key[..length], &other), "byte {changed} of {length}");
            }
        }
    }

    #[test]
    fn an_index_finds_every_key_it_was_given_and_no_other() {
        let keys: Vec<Vec<u8>> = (0..5000_u32).map(|n| n.to_string().into_bytes()).collect();
        let mut index = Index::default();
        for (slot, key) in keys.iter().enumerate() {
            match index.find(hash(key), |slot| keys[slot as usize] == *key) {
                Found::Slot(slot) => panic!("{key:?} is already at {slot}"),
                Found::Free(free) => {
                    index.insert(free, slot as u32, |slot| hash(&keys[slot as usize]))
                }
            }
        }
        for (slot, key) in keys.iter().enumerate() {
            let found = index.find(hash(key), |slot| keys[slot as usize] == *key);
            assert!(matches!(found, Found::Slot(found) if found as usize == slot));
        }
        assert!(matches!(
            index.find(hash(b"no"), |slot| keys[slot as usize] == b"no"),
            Found::Free(_)
        ));
    }
}
