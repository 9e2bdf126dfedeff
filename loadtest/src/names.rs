//! Objects are numbers here and IDs on the wire.

/// Writes and reads `prefix` with a number behind it.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: Box<str>,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// Appends the ID of an object. It never needs escapes: the scenario's check sees to that.
    pub(crate) fn write(&self, object: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        write_decimal(u64::from(object), out);
    }

    pub(crate) fn text(&self, object: u32) -> String {
        format!("{}{object}", self.prefix)
    }

    /// The object of an ID; `None` if it is not one of ours.
    pub(crate) fn read(&self, id: &str) -> Option<u32> {
        let digits = id.strip_prefix(&*self.prefix)?.as_bytes();
        if digits.is_empty() || digits.len() > 9 {
            return None;
        }
        digits.iter().try_fold(0_u32, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0'))
        })
    }
}

/// Appends a number as decimal text, without the formatting machinery: this runs a million times a second.
pub(crate) fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let (mut digits, mut start) = ([0; 20], 20);
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_as_they_were_written() {
        let names = Names::new("o:");
        for object in [0, 7, 10, 99_999_999] {
            let mut id = Vec::new();
            names.write(object, &mut id);
            let id = String::from_utf8(id).expect("text");
            assert_eq!(id, names.text(object));
            assert_eq!(names.read(&id), Some(object));
        }
        for strange in ["", "o:", "x:1", "o:1x", "o:12345678901", "o:-1"] {
            assert_eq!(names.read(strange), None, "{strange:?}");
        }
    }
}
