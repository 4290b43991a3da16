//! Values that stand where they are looked for, as long as they are few. Owns nothing but that: a lookup among
//! thousands waits for memory, once for every pointer on its way.

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
};

/// A slice that never changes; up to `N` values of it need no memory elsewhere.
#[derive(Clone)]
pub(crate) enum Few<T, const N: usize> {
    /// The first so many of these.
    Here(u8, [T; N]),
    /// More than `N`.
    Elsewhere(Box<[T]>),
}

impl<T: Copy + Default, const N: usize> From<&[T]> for Few<T, N> {
    fn from(values: &[T]) -> Self {
        let mut here = [T::default(); N];
        match (here.get_mut(..values.len()), u8::try_from(values.len())) {
            (Some(places), Ok(length)) => {
                places.copy_from_slice(values);
                Self::Here(length, here)
            }
            _ => Self::Elsewhere(values.into()),
        }
    }
}

impl<T: Copy + Default, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self::Here(0, [T::default(); N])
    }
}

impl<T, const N: usize> Deref for Few<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Here(length, values) => values.get(..usize::from(*length)).unwrap_or_default(),
            Self::Elsewhere(values) => values,
        }
    }
}

/// As a key it is found by any slice that equals it.
impl<T, const N: usize> Borrow<[T]> for Few<T, N> {
    fn borrow(&self) -> &[T] {
        self
    }
}

impl<T: Hash, const N: usize> Hash for Few<T, N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<T: PartialEq, const N: usize> PartialEq for Few<T, N> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq, const N: usize> Eq for Few<T, N> {}

impl<T: fmt::Debug, const N: usize> fmt::Debug for Few<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn few_of_any_length_are_found_by_their_slice() {
        let all: [u8; 6] = [1, 2, 0, 3, 0, 0];
        let lengths = 0..=all.len();
        let map: HashMap<Few<u8, 4>, usize> = lengths
            .clone()
            .map(|length| (Few::from(&all[..length]), length))
            .collect();
        for length in lengths {
            let (found, _) = map.get_key_value(&all[..length]).unwrap();
            assert_eq!(**found, all[..length]);
            assert_eq!(matches!(found, Few::Elsewhere(_)), length > 4);
        }
        assert_eq!(map.len(), 7, "padding is no value");
        assert_eq!(Few::<u8, 4>::default(), Few::from(&all[..0]));
    }
}
