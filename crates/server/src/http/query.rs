//! The query part of a URL, as Go reads it.

/// Names and values, decoded, in order. Pairs that do not decode, or hold a `;`, are left out.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part after the question mark.
    pub fn new(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
        Query(
            pairs
                .filter_map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((decode(name, true)?, decode(value, true)?))
                })
                .collect(),
        )
    }

    /// The first value of this name.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// All values of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// Resolves `%XX`, and in a query `+`; `None` if it is no valid text.
pub fn decode(text: &str, in_query: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || (bytes.next()? as char).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'+' if in_query => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_gos() {
        let query = Query::new("exclude=NOSPACE&exclude=A%20B&a;b=c&serializable&x=%zz&y=1+2");
        assert_eq!(query.all("exclude"), ["NOSPACE", "A B"]);
        assert_eq!(query.first("serializable"), Some(""));
        assert_eq!(query.first("x"), None);
        assert_eq!(query.first("y"), Some("1 2"));
        assert_eq!(query.first("b"), None);
    }
}
