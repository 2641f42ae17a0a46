//! JSON pointers (RFC 6901), by which settings name a place in a body.

use std::str::FromStr;

use usher_proto::Json;

/// Most parts of a pointer.
const MOST: usize = 16;

/// A place in a JSON text, below the outermost value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer(Vec<String>);

/// The text is not a JSON pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a place is a JSON pointer of at most {MOST} parts, such as /data/user_id, with ~1 for / and ~0 for ~ in a name"
)]
pub(super) struct InvalidPointer;

/// A name on the way to the place occurs twice. Readers may differ in the one that they use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ambiguous;

impl FromStr for Pointer {
    type Err = InvalidPointer;

    fn from_str(text: &str) -> Result<Self, InvalidPointer> {
        let parts: Vec<&str> = text.strip_prefix('/').ok_or(InvalidPointer)?.split('/').collect();
        if parts.len() > MOST {
            return Err(InvalidPointer);
        }
        parts.into_iter().map(unescaped).collect::<Option<_>>().map(Self).ok_or(InvalidPointer)
    }
}

/// Returns the name that a part stands for. `None` if a `~` is followed by anything but 0 or 1.
fn unescaped(part: &str) -> Option<String> {
    let mut pieces = part.split('~');
    let mut name = pieces.next()?.to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(1)?;
        name.push(match code {
            "0" => '~',
            "1" => '/',
            _ => return None,
        });
        name.push_str(rest);
    }
    Some(name)
}

impl Pointer {
    /// Returns the value at the place. `None` if there is none.
    ///
    /// # Errors
    ///
    /// A name on the way occurs twice in its object.
    pub(super) fn find<'a>(&self, body: Json<'a>) -> Result<Option<Json<'a>>, Ambiguous> {
        let mut value = body;
        for part in &self.0 {
            let next = if value.is_object() {
                let [member] = value.unique([part.as_str()]).ok_or(Ambiguous)?;
                member
            } else {
                index(part).and_then(|index| value.items().nth(index))
            };
            match next {
                Some(next) => value = next,
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }
}

/// Returns the index that a part denotes in an array: a number without leading zeros.
fn index(part: &str) -> Option<usize> {
    let is_number = part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
    if is_number { part.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard_are_found() {
        // RFC 6901, section 5, without the pointer to the whole.
        let text = r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
        let body = Json::read(text).expect("JSON");
        for (pointer, found) in [
            ("/foo", r#"["bar","baz"]"#),
            ("/foo/0", r#""bar""#),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ] {
            let pointer: Pointer = pointer.parse().expect(pointer);
            assert_eq!(pointer.find(body).expect("one").map(Json::as_str), Some(found), "{pointer:?}");
        }
        for nothing in ["/foo/2", "/foo/01", "/foo/-", "/foo/bar", "/nope", "/foo/0/x", "/m~0n/0"] {
            assert_eq!(nothing.parse::<Pointer>().expect(nothing).find(body).expect("one"), None, "{nothing}");
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused_and_a_place_that_exists_twice_too() {
        for bad in ["", "foo", "#/foo", "/a~", "/a~2b", &"/a".repeat(17)] {
            assert_eq!(bad.parse::<Pointer>(), Err(InvalidPointer), "{bad}");
        }
        let twice = Json::read(r#"{"data":{"id":"a","id":"b"},"x":{"id":"c"}}"#).expect("JSON");
        assert_eq!("/data/id".parse::<Pointer>().expect("a pointer").find(twice), Err(Ambiguous));
        assert!("/x/id".parse::<Pointer>().expect("a pointer").find(twice).expect("one").is_some());
    }
}
