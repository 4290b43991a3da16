//! Names as Kubernetes generates them. Owns the alphabet and the cuts; whether a name is free belongs to the caller.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// `alphanums` of k8s.io/apimachinery/pkg/util/rand: no vowels and no look-alikes.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Random characters at the end of a generated name (`randomLength` of the API server's name generator).
const SUFFIX: usize = 5;

/// Longest part before them (`MaxGeneratedNameLength`): 63 less the suffix.
const BASE: usize = 63 - SUFFIX;

/// The text of a template hash in names and in the label `pod-template-hash`: `rand.SafeEncodeString` of the
/// decimal number.
///
/// `collisions` is how many names made from this hash were taken: Kubernetes feeds that number to the same hash
/// (`collisionCount` of the Deployment controller).
pub fn template_hash_text(hash: u32, collisions: u32) -> String {
    let hash = if collisions == 0 {
        hash
    } else {
        fnv1a(hash, collisions)
    };
    hash.to_string()
        .bytes()
        .map(|digit| letter(u64::from(digit)))
        .collect()
}

/// What the names of the pods of `replica_set` begin with (`generateName`), cut as the name generator cuts it.
fn pod_base(replica_set: &str) -> String {
    let mut base = format!("{replica_set}-");
    let cut = (0..=BASE.min(base.len()))
        .rev()
        .find(|at| base.is_char_boundary(*at));
    base.truncate(cut.unwrap_or_default());
    base
}

/// The name of the pod number `number` of `replica_set`, by the run's `seed`.
pub fn pod_name(replica_set: &str, number: u64, seed: u64) -> String {
    let mut text = pod_base(replica_set);
    let drawn = format!("{replica_set}/{number}");
    let mut rest = xxh3_64_with_seed(drawn.as_bytes(), seed);
    for _ in 0..SUFFIX {
        text.push(letter(rest));
        rest /= 27;
    }
    text
}

/// One character of the alphabet, by remainder.
fn letter(number: u64) -> char {
    let index = usize::try_from(number % 27).unwrap_or_default();
    char::from(ALPHABET.get(index).copied().unwrap_or(b'b'))
}

/// FNV-1a (32 bits) continued from `hash` over `collisions` as eight bytes, least significant first.
fn fnv1a(hash: u32, collisions: u32) -> u32 {
    u64::from(collisions)
        .to_le_bytes()
        .iter()
        .fold(hash, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_hash_text_of_numbers_is_kubernetes_safe_encoding() {
        for (hash, text) in [
            (0, "4"),
            (1_234_567_890, "56789bcdf4"),
            (2_166_136_261, "65bb57b6b5"),
        ] {
            assert_eq!(template_hash_text(hash, 0), text);
        }
    }

    #[test]
    fn template_hash_text_after_a_collision_differs() {
        assert_ne!(template_hash_text(7, 1), template_hash_text(7, 0));
        assert_ne!(template_hash_text(7, 1), template_hash_text(7, 2));
    }

    #[test]
    fn fnv1a_of_eight_bytes_is_the_published_function() {
        // FNV-1a of "a" followed by seven zero bytes, from the offset basis, one step at a time.
        let first = (0x811c_9dc5_u32 ^ 0x61).wrapping_mul(0x0100_0193);
        assert_eq!(first, 0xe40c_292c, "published value for \"a\"");
        let eight = (0..7).fold(first, |hash: u32, _| hash.wrapping_mul(0x0100_0193));
        assert_eq!(fnv1a(0x811c_9dc5, 0x61), eight);
    }

    #[test]
    fn pod_name_of_long_and_short_sets_has_five_characters_after_at_most_58() {
        let long = "x".repeat(70);
        for (set, base) in [
            ("web-56789bcdf4", "web-56789bcdf4-".to_owned()),
            (&long[..57], format!("{}-", "x".repeat(57))),
            (&long[..58], "x".repeat(58)),
            (&long[..], "x".repeat(58)),
        ] {
            let name = pod_name(set, 1, 42);
            assert_eq!(name.len(), base.len() + 5, "{name}");
            assert!(name.starts_with(&base) && name.len() <= 63, "{name}");
            assert!(
                name[base.len()..]
                    .bytes()
                    .all(|byte| ALPHABET.contains(&byte)),
                "{name}"
            );
        }
    }

    #[test]
    fn pod_name_of_another_number_seed_or_set_differs() {
        let name = pod_name("web", 1, 42);
        assert_eq!(name, pod_name("web", 1, 42));
        assert_ne!(name, pod_name("web", 2, 42));
        assert_ne!(name, pod_name("web", 1, 43));
        assert_ne!(name[4..], pod_name("wob", 1, 42)[4..]);
    }
}
