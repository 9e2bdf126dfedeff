//! An object's ID in 16 bytes where it is short, as most are: no allocation, and nothing to chase when it is compared.

/// The longest ID that needs no allocation.
const SHORT: usize = 14;

/// An object's ID.
#[derive(Debug)]
pub(super) enum Name {
    Short {
        len: u8,
        bytes: [u8; SHORT],
    },
    /// Twice boxed: the outer box is one word wide.
    Long(Box<Box<str>>),
}

impl Default for Name {
    /// The name of no object.
    fn default() -> Self {
        Self::Short {
            len: 0,
            bytes: [0; SHORT],
        }
    }
}

impl From<Box<str>> for Name {
    fn from(text: Box<str>) -> Self {
        if text.len() > SHORT {
            return Self::Long(Box::new(text));
        }
        let mut bytes = [0; SHORT];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Self::Short {
            len: text.len() as u8,
            bytes,
        }
    }
}

impl Name {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(text) => text.as_bytes(),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            // It was made of a `str`, so this never falls back.
            Self::Short { .. } => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Self::Long(text) => text,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether it names no object.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_16_bytes_and_gives_back_its_text() {
        assert_eq!(size_of::<Name>(), 16);
        for text in [
            "",
            "a",
            "order:42",
            "fourteen bytes",
            "fifteen bytes..",
            "äöüäöüä",
            "äöüäöüäö",
        ] {
            let name = Name::from(Box::<str>::from(text));
            assert_eq!(
                (name.as_str(), name.len(), name.is_empty()),
                (text, text.len(), text.is_empty())
            );
            assert_eq!(matches!(name, Name::Short { .. }), text.len() <= SHORT, "{text}");
        }
    }
}
