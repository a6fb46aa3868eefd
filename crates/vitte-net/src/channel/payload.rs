//! Values to bytes and back: postcard, and fingerprints of their schemas.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use postcard_schema::Schema;
use postcard_schema::key::Key;
use postcard_schema::schema::owned::OwnedNamedType;
use postcard_schema::schema::{DataModelType, NamedType};
use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a type looks like on the wire, in eight bytes.
pub(crate) struct Fingerprint<T>(PhantomData<T>);

impl<T: Schema> Fingerprint<T> {
    pub(crate) const VALUE: u64 = u64::from_be_bytes(Key::for_path::<T>("vitte/1").to_bytes());
}

/// A schema in words, for the error at a mismatch.
pub(crate) fn describe<T: Schema>() -> String {
    OwnedNamedType::from(T::SCHEMA).to_pseudocode()
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, String> {
    postcard::to_stdvec(value).map(Bytes::from).map_err(|error| error.to_string())
}

pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(payload) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(String::from("bytes are left over")),
        Err(error) => Err(error.to_string()),
    }
}

/// Bytes inside a message, written in one run: a source file, an object, a picture. A `Vec<u8>` would be
/// written element by element.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Blob(pub Bytes);

impl Schema for Blob {
    const SCHEMA: &'static NamedType = &NamedType { name: "Blob", ty: &DataModelType::ByteArray };
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl<B: Into<Bytes>> From<B> for Blob {
    fn from(bytes: B) -> Self {
        Self(bytes.into())
    }
}

impl std::ops::Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(Whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_come_back_and_left_over_bytes_are_an_error() {
        let blob = Blob::from(vec![1, 2, 3]);
        let bytes = encode(&blob).expect("a blob can be written");
        assert_eq!(bytes, vec![3, 1, 2, 3]);
        assert_eq!(decode::<Blob>(&bytes), Ok(blob));
        assert!(decode::<Blob>(&[1, 2, 3]).is_err());
        assert!(decode::<u32>(&[]).is_err());
    }

    #[test]
    fn other_types_have_other_fingerprints() {
        assert_ne!(Fingerprint::<u32>::VALUE, Fingerprint::<u64>::VALUE);
        assert_ne!(Fingerprint::<Blob>::VALUE, Fingerprint::<String>::VALUE);
        assert_eq!(Fingerprint::<(u8, String)>::VALUE, Fingerprint::<(u8, String)>::VALUE);
    }
}
