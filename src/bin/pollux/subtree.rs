//! Subtrees as arguments.

use std::os::unix::ffi::OsStringExt;

use clap::builder::{OsStringValueParser, TypedValueParser};

/// Bytes of an argument, as the system gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

/// A subtree: nothing, or a beginning of keys that ends in `/`.
pub(crate) fn subtree_parser() -> impl TypedValueParser<Value = Bytes> {
    OsStringValueParser::new().try_map(|text| subtree(text.into_vec()))
}

/// [`subtree_parser`], but not of everything: an empty variable of a shell is no order to delete it.
pub(crate) fn own_subtree_parser() -> impl TypedValueParser<Value = Bytes> {
    OsStringValueParser::new().try_map(|text| match text.is_empty() {
        true => Err("expected a subtree, as /a/b/; / for all keys that begin with it".to_owned()),
        false => subtree(text.into_vec()),
    })
}

fn subtree(bytes: Vec<u8>) -> Result<Bytes, String> {
    let shown = String::from_utf8_lossy(&bytes).into_owned();
    match bytes.as_slice() {
        b"" => Ok(Bytes(bytes)),
        [b'/', .., b'/'] | b"/" => Ok(Bytes(bytes)),
        [b'/', ..] => Err(format!("a subtree ends in \"/\"; did you mean \"{shown}/\"?")),
        _ => Err("a subtree begins and ends with \"/\", as /a/b/".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subtree_ends_in_a_slash_and_the_error_shows_how() {
        for good in ["", "/", "/a/", "/a/b/"] {
            assert_eq!(subtree(good.into()), Ok(Bytes(good.into())));
        }
        assert!(subtree(b"/a".to_vec()).unwrap_err().contains("\"/a/\""));
        assert!(subtree(b"a/".to_vec()).is_err());
    }
}
