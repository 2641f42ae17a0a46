//! Generates people from a seed. Pure; the n-th person of a seed is the same in every run.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::ids;

/// First names, each with its spelling in an address. Some contain multi-byte characters, to reveal code that confuses
/// bytes and characters.
const FIRST_NAMES: [(&str, &str); 20] = [
    ("Amara", "amara"),
    ("Björn", "bjorn"),
    ("Chiara", "chiara"),
    ("Dariusz", "dariusz"),
    ("Esi", "esi"),
    ("Farid", "farid"),
    ("Greta", "greta"),
    ("Hiroko", "hiroko"),
    ("Ilse", "ilse"),
    ("Joaquín", "joaquin"),
    ("Kamala", "kamala"),
    ("Łukasz", "lukasz"),
    ("Maren", "maren"),
    ("Ngọc", "ngoc"),
    ("Ottilie", "ottilie"),
    ("Παύλος", "pavlos"),
    ("Ruth", "ruth"),
    ("Søren", "soren"),
    ("Tadeo", "tadeo"),
    ("Zoë", "zoe"),
];
const LAST_NAMES: [(&str, &str); 20] = [
    ("Abara", "abara"),
    ("Bergström", "bergstrom"),
    ("Castellanos", "castellanos"),
    ("de Wit", "dewit"),
    ("Eriksen", "eriksen"),
    ("Fofana", "fofana"),
    ("Gruber", "gruber"),
    ("Haddad", "haddad"),
    ("Ito", "ito"),
    ("Jovanović", "jovanovic"),
    ("Kowalczyk", "kowalczyk"),
    ("Lindqvist", "lindqvist"),
    ("Mensah", "mensah"),
    ("Nguyễn", "nguyen"),
    ("O'Hara", "ohara"),
    ("Popescu", "popescu"),
    ("Quispe", "quispe"),
    ("Rossi", "rossi"),
    ("Šimić", "simic"),
    ("Tanaka", "tanaka"),
];

/// Number of characters after the prefix of a Clerk id.
pub(super) const ID_LENGTH: usize = 27;

/// A generated person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) id: String,
    pub(super) first_name: &'static str,
    pub(super) last_name: &'static str,
    pub(super) username: String,
    pub(super) address: String,
    seed: u64,
    number: u64,
}

/// Returns a separate random number generator for each purpose, so that the draws of one never shift those of another.
/// The four numbers are the whole seed: equal numbers give equal draws.
pub(super) fn draws(seed: u64, purpose: u64, number: u64, detail: u64) -> StdRng {
    let mut state = [0; 32];
    for (place, word) in state.chunks_exact_mut(8).zip([seed, purpose, number, detail]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    StdRng::from_seed(state)
}

/// Hashes a text for [`draws`] with FNV-1a, which is stable across versions of Rust.
pub(super) fn word(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

const WHO: u64 = 1;
const DERIVED: u64 = 2;

impl Person {
    /// Returns the `number`-th person of `seed`.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut rng = draws(seed, WHO, number, 0);
        let id = format!("user_{}", ids::base62(&mut rng, ID_LENGTH));
        let (first_name, first) = FIRST_NAMES[rng.random_range(0..FIRST_NAMES.len())];
        let (last_name, last) = LAST_NAMES[rng.random_range(0..LAST_NAMES.len())];
        let tag = ids::base62(&mut rng, 8).to_lowercase();
        let username = format!("{first}_{tag}");
        let address = format!("{first}.{last}.{tag}@workplace.test");
        Self { id, first_name, last_name, username, address, seed, number }
    }

    /// Returns this person's counterpart of an id in the template. The same id has the same counterpart in every event.
    pub(super) fn id_for(&self, prefix: &str, id: &str, length: usize) -> String {
        format!("{prefix}{}", ids::base62(&mut self.derived(id), length))
    }

    /// Returns this person's counterpart of an address that is not the primary one. Its domain is reserved for tests.
    pub(super) fn address_for(&self, address: &str) -> String {
        let tag = ids::base62(&mut self.derived(address), 8).to_lowercase();
        let (local, _) = self.address.split_once('@').unwrap_or_default();
        format!("{local}.{tag}@mailbox.test")
    }

    fn derived(&self, text: &str) -> StdRng {
        draws(self.seed, DERIVED, self.number, word(text))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_person_is_the_same_in_every_run_and_nobody_else() {
        assert_eq!(Person::new(7, 3), Person::new(7, 3));
        let people: Vec<Person> = (0..5000).map(|number| Person::new(7, number)).collect();
        assert_eq!(people.iter().map(|person| &person.id).collect::<HashSet<_>>().len(), 5000);
        assert_eq!(people.iter().map(|person| &person.address).collect::<HashSet<_>>().len(), 5000);
        assert_ne!(Person::new(8, 3).id, people[3].id);
    }

    #[test]
    fn an_id_has_clerks_shape() {
        let id = Person::new(1, 1).id;
        let rest = id.strip_prefix("user_").expect("the prefix");
        assert_eq!(rest.len(), 27);
        assert!(rest.bytes().all(|b| b.is_ascii_alphanumeric()));
    }
}
