//! Messages: JSON objects, each ended by a NUL.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Failure, LARGEST_MESSAGE, Method};

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// It is longer than a message may be.
    TooLong,
    /// It is no JSON of this form: what is wrong.
    NoMessage(String),
    /// What was to be sent is nothing that a message can say: what is wrong.
    Unsendable(String),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "a message is longer than {LARGEST_MESSAGE} bytes"),
            Self::NoMessage(what) => write!(f, "no message of the protocol: {what}"),
            Self::Unsendable(what) => write!(f, "it cannot be said in a message: {what}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Whether a call is answered more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replies {
    /// Once.
    One,
    /// Until a reply says that it is the last, or the connection ends.
    More,
    /// Not at all.
    None,
}

#[derive(Serialize)]
struct CallMessage<'call, P> {
    method: &'static str,
    parameters: &'call P,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    more: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    oneway: bool,
}

/// A call as it is sent, with its NUL.
///
/// # Errors
/// When it is too long.
pub fn encode_call<M: Method>(call: &M, replies: Replies) -> Result<Vec<u8>, Malformed> {
    let message = CallMessage {
        method: M::NAME,
        parameters: call,
        more: replies == Replies::More,
        oneway: replies == Replies::None,
    };
    let mut bytes = serde_json::to_vec(&message).map_err(|error| Malformed::Unsendable(error.to_string()))?;
    // No NUL of the JSON's own: in a JSON string it is always escaped.
    bytes.push(0);
    if bytes.len() > LARGEST_MESSAGE {
        return Err(Malformed::TooLong);
    }
    Ok(bytes)
}

/// A reply: the result, or why there is none; and whether more follow.
#[derive(Debug)]
pub struct Reply<R> {
    /// The result.
    pub result: Result<R, Failure>,
    /// Whether more replies follow.
    pub continues: bool,
}

/// The reply to a call of `M` in `message`, which is without its NUL.
///
/// # Errors
/// When it is none.
pub fn decode_reply<M: Method>(message: &[u8]) -> Result<Reply<M::Reply>, Malformed> {
    #[derive(Deserialize)]
    struct Whole<'message> {
        error: Option<&'message RawValue>,
        #[serde(borrow)]
        parameters: Option<&'message RawValue>,
        #[serde(default)]
        continues: bool,
    }
    let wrong = |error: serde_json::Error| Malformed::NoMessage(error.to_string());
    let whole: Whole<'_> = serde_json::from_slice(message).map_err(wrong)?;
    if whole.error.is_some() {
        let failure = serde_json::from_slice(message).map_err(wrong)?;
        return Ok(Reply { result: Err(failure), continues: false });
    }
    let parameters = whole.parameters.map_or("{}", RawValue::get);
    let reply = serde_json::from_str(parameters).map_err(wrong)?;
    Ok(Reply { result: Ok(reply), continues: whole.continues })
}

/// Takes messages out of a stream of bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Up to here no NUL has been found.
    searched: usize,
}

impl Decoder {
    /// Takes on what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, without its NUL; `None` when more has to be read for it.
    ///
    /// # Errors
    /// When there is none in as many bytes as a message may have.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        let found = self.bytes[self.searched..].iter().position(|byte| *byte == 0);
        let Some(at) = found.map(|at| at + self.searched) else {
            self.searched = self.bytes.len();
            return if self.searched >= LARGEST_MESSAGE { Err(Malformed::TooLong) } else { Ok(None) };
        };
        if at >= LARGEST_MESSAGE {
            return Err(Malformed::TooLong);
        }
        let rest = self.bytes.split_off(at + 1);
        let mut message = std::mem::replace(&mut self.bytes, rest);
        message.pop();
        self.searched = 0;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{GetStatus, OwnToken, Request};

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            messages in proptest::collection::vec("[ -~]{0,40}", 0..8),
            cut in 1_usize..50,
        ) {
            let mut stream = Vec::new();
            for message in &messages {
                stream.extend_from_slice(message.as_bytes());
                stream.push(0);
            }
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while let Some(message) = decoder.next_message().unwrap() {
                    found.push(String::from_utf8(message).unwrap());
                }
            }
            prop_assert_eq!(found, messages);
        }

        #[test]
        fn no_parameters_make_the_table_of_requests_panic(
            method in proptest::sample::select(Request::METHODS),
            parameters in "[ -~]{0,80}",
        ) {
            let _ = Request::decode(method, Some(&parameters));
        }

        #[test]
        fn no_bytes_make_the_decoder_of_replies_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode_reply::<GetStatus>(&bytes);
        }
    }

    #[test]
    fn a_stream_without_an_end_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&vec![b'x'; LARGEST_MESSAGE]);
        assert_eq!(decoder.next_message(), Err(Malformed::TooLong));
    }

    #[test]
    fn a_call_is_varlinks() {
        let call = encode_call(&OwnToken {}, Replies::One).unwrap();
        assert_eq!(call, b"{\"method\":\"io.stead.Service.OwnToken\",\"parameters\":{}}\0");
    }

    #[test]
    fn a_parameter_that_is_not_known_is_refused() {
        assert!(Request::decode("io.stead.Service.OwnToken", Some(r#"{"no_new_privs":true}"#)).is_err());
        assert!(Request::decode("io.stead.Service.OwnToken", None).is_ok());
        assert!(Request::decode("io.stead.Service.Nothing", None).is_err());
    }
}
