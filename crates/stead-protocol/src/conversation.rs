//! What is said over the socket of a conversation.
//!
//! The service asks: a [`Question`] as JSON, ended by a NUL. To a [prompt](Question::Prompt) the caller
//! answers with one byte `+`, the answer's bytes and a NUL; or, to refuse, with `-` and a NUL. To what it is
//! [told](Question::Inform) it says nothing. When the logon is over the service closes the socket.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::LONGEST_SECRET;

/// What the service says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// A question, which has to be answered.
    Prompt {
        /// What is asked.
        text: String,
        /// Whether the answer may be shown while it is typed.
        echo: bool,
    },
    /// A text for whoever logs on.
    Inform {
        /// The text.
        text: String,
        /// Whether it tells of an error.
        error: bool,
    },
}

impl Question {
    /// It as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        // A structure of strings and truth values always has a form.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(0);
        bytes
    }

    /// The question in `message`, which is without its NUL.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(message: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(message)
    }
}

/// An answer as it is sent; `None` refuses. An answer with a NUL, or longer than a secret may be, is a refusal.
pub fn encode_answer(answer: Option<&[u8]>) -> Zeroizing<Vec<u8>> {
    let usable = answer.filter(|answer| answer.len() <= LONGEST_SECRET && !answer.contains(&0));
    let mut bytes = Zeroizing::new(Vec::with_capacity(usable.map_or(0, <[u8]>::len) + 2));
    bytes.push(if usable.is_some() { b'+' } else { b'-' });
    bytes.extend_from_slice(usable.unwrap_or_default());
    bytes.push(0);
    bytes
}

/// The answer in `bytes`, as read so far: `None` when more has to be read; then the answer, or `None` for a
/// refusal, and for anything else that is no answer.
pub fn decode_answer(bytes: &[u8]) -> Option<Option<Zeroizing<Vec<u8>>>> {
    match bytes.iter().position(|byte| *byte == 0) {
        // Whether its end has come already makes no difference.
        Some(end) if end > LONGEST_SECRET + 1 => Some(None),
        Some(end) => Some(bytes[..end].strip_prefix(b"+").map(|answer| Zeroizing::new(answer.to_vec()))),
        None if bytes.len() > LONGEST_SECRET + 1 => Some(None),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_answer_survives_the_wire(answer in proptest::option::of(proptest::collection::vec(1_u8..=255, 0..64))) {
            let sent = encode_answer(answer.as_deref());
            prop_assert_eq!(decode_answer(&sent[..sent.len() - 1]), None);
            prop_assert_eq!(decode_answer(&sent).unwrap().map(|answer| answer.to_vec()), answer);
        }
    }

    #[test]
    fn an_answer_longer_than_a_secret_may_be_is_a_refusal_however_much_of_it_is_read_at_once() {
        let longest = vec![b'x'; LONGEST_SECRET];
        let sent = encode_answer(Some(&longest));
        assert_eq!(decode_answer(&sent).unwrap().map(|answer| answer.to_vec()), Some(longest));
        let mut longer = vec![b'+'];
        longer.resize(LONGEST_SECRET + 2, b'x');
        assert_eq!(decode_answer(&longer), Some(None));
        longer.push(0);
        assert_eq!(decode_answer(&longer), Some(None));
    }

    #[test]
    fn a_question_survives_the_wire() {
        let question = Question::Prompt { text: "One-time code: ".to_owned(), echo: false };
        let sent = question.encode();
        assert_eq!(Question::decode(sent.strip_suffix(b"\0").unwrap()).unwrap(), question);
    }
}
