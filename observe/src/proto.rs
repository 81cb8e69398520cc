//! Protocol buffers, as far as writing small messages takes.

/// A message that is being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A whole number; 0 is the same as none and takes no room.
    pub(crate) fn int(&mut self, field: u32, value: i64) {
        if value != 0 {
            self.varint(u64::from(field << 3));
            self.varint(value as u64);
        }
    }

    /// A number of type `double`, written also when it is 0.
    pub(crate) fn double(&mut self, field: u32, value: f64) {
        self.varint(u64::from(field << 3 | 1));
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Text or bytes, written also when there are none.
    pub(crate) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field << 3 | 2));
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A message in the message.
    pub(crate) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// Repeated whole numbers.
    pub(crate) fn packed(&mut self, field: u32, values: impl IntoIterator<Item = u64>) {
        let mut inner = Self::default();
        values.into_iter().for_each(|value| inner.varint(value));
        self.bytes(field, &inner.0);
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Appends the message behind its length, as in a stream of messages.
    pub(crate) fn write_delimited(self, out: &mut Vec<u8>) {
        let mut length = Self::default();
        length.varint(self.0.len() as u64);
        out.extend_from_slice(&length.0);
        out.extend_from_slice(&self.0);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A field as it was read.
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) enum Field {
        Int(u64),
        Double(f64),
        Bytes(Vec<u8>),
    }

    impl Field {
        pub(crate) fn int(&self) -> u64 {
            let Self::Int(value) = self else { panic!("{self:?} is no whole number") };
            *value
        }

        pub(crate) fn bytes(&self) -> &[u8] {
            let Self::Bytes(bytes) = self else { panic!("{self:?} is no text") };
            bytes
        }
    }

    /// Takes a message apart.
    pub(crate) fn read(mut rest: &[u8]) -> Vec<(u32, Field)> {
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let key = varint(&mut rest);
            let field = match key & 7 {
                0 => Field::Int(varint(&mut rest)),
                1 => Field::Double(f64::from_le_bytes(take(&mut rest, 8).try_into().unwrap())),
                2 => {
                    let length = varint(&mut rest) as usize;
                    Field::Bytes(take(&mut rest, length).to_vec())
                }
                kind => panic!("wire type {kind}"),
            };
            fields.push(((key >> 3) as u32, field));
        }
        fields
    }

    pub(crate) fn varint(rest: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = take(rest, 1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    pub(crate) fn take<'a>(rest: &mut &'a [u8], n: usize) -> &'a [u8] {
        let (taken, left) = rest.split_at(n);
        *rest = left;
        taken
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut message = Message::default();
        message.int(1, 300);
        message.int(2, 0);
        message.int(3, -1);
        message.double(4, 0.5);
        message.message(16, |inner| inner.bytes(1, "é".as_bytes()));
        message.packed(6, [1, 128]);
        let expected = [
            (1, Field::Int(300)),
            (3, Field::Int(u64::MAX)),
            (4, Field::Double(0.5)),
            (16, Field::Bytes(vec![0x0a, 2, 0xc3, 0xa9])),
            (6, Field::Bytes(vec![1, 0x80, 1])),
        ];
        let mut stream = Vec::new();
        message.write_delimited(&mut stream);
        let mut rest = &*stream;
        assert_eq!(varint(&mut rest) as usize, rest.len());
        assert_eq!(read(rest), expected);
    }
}
