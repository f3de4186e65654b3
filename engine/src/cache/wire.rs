//! A page as bytes: what another node, or this one later, takes for it only when everything fits.
//!
//! ```text
//! "gobo" format:u8 | count:u64 | total:(0 | 1 u64) | next:(0 | 1 length:u32 bytes) | length:u64 body | sha256
//! ```
//!
//! Numbers are big-endian. The checksum covers the key as well, so a value that stands under another one's key is odd.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::query::Page;

/// Changes whenever the meaning of the bytes does.
const FORMAT: &[u8; 5] = b"gobo\x01";
const CHECKSUM: usize = 32;

/// The value for a page under this key.
pub(super) fn encode(key: &str, page: &Page) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.body.len() + 128);
    out.extend_from_slice(FORMAT);
    out.extend_from_slice(&page.count.to_be_bytes());
    match page.total {
        None => out.push(0),
        Some(total) => {
            out.push(1);
            out.extend_from_slice(&total.to_be_bytes());
        }
    }
    match &page.next {
        None => out.push(0),
        Some(next) => {
            out.push(1);
            out.extend_from_slice(&(next.len() as u32).to_be_bytes());
            out.extend_from_slice(next.as_bytes());
        }
    }
    out.extend_from_slice(&(page.body.len() as u64).to_be_bytes());
    out.extend_from_slice(&page.body);
    let sum = checksum(key, &out);
    out.extend_from_slice(&sum);
    out
}

/// The page of a value under this key; `None` for anything that [`encode`] has not made.
pub(super) fn decode(key: &str, value: Vec<u8>) -> Option<Page> {
    let value = Bytes::from(value);
    let end = value.len().checked_sub(CHECKSUM)?;
    if value[end..] != checksum(key, &value[..end]) {
        return None;
    }
    let mut rest = value.slice(..end);
    if take(&mut rest, FORMAT.len())? != FORMAT[..] {
        return None;
    }
    let count = number(&mut rest)?;
    let total = match take(&mut rest, 1)?[0] {
        0 => None,
        1 => Some(number(&mut rest)?),
        _ => return None,
    };
    let next = match take(&mut rest, 1)?[0] {
        0 => None,
        1 => {
            let length = u32::from_be_bytes(take(&mut rest, 4)?[..].try_into().ok()?);
            let text = take(&mut rest, usize::try_from(length).ok()?)?;
            Some(String::from_utf8(text.to_vec()).ok()?)
        }
        _ => return None,
    };
    let length = usize::try_from(number(&mut rest)?).ok()?;
    let body = take(&mut rest, length)?;
    rest.is_empty().then_some(Page {
        count,
        total,
        body,
        next,
    })
}

fn checksum(key: &str, value: &[u8]) -> [u8; CHECKSUM] {
    let mut hash = Sha256::new();
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(value);
    hash.finalize().into()
}

fn take(rest: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= rest.len()).then(|| rest.split_to(length))
}

fn number(rest: &mut Bytes) -> Option<u64> {
    let bytes = take(rest, 8)?;
    Some(u64::from_be_bytes(bytes[..].try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Vec<Page> {
        let page = |total, next: Option<&str>, body: &'static str| Page {
            count: 3,
            total,
            body: Bytes::from_static(body.as_bytes()),
            next: next.map(str::to_owned),
        };
        vec![
            page(None, None, ""),
            page(Some(7), Some("cursor"), "[{\"é\":1}]"),
            page(None, Some(""), "[]"),
        ]
    }

    #[test]
    fn a_page_comes_back_as_it_was() {
        for page in pages() {
            assert_eq!(decode("k", encode("k", &page)), Some(page));
        }
    }

    #[test]
    fn anything_odd_is_no_page() {
        for page in pages() {
            let value = encode("k", &page);
            assert_eq!(decode("other", value.clone()), None);
            for at in 0..value.len() {
                let mut odd = value.clone();
                odd[at] ^= 1;
                assert_eq!(decode("k", odd), None, "byte {at}");
                assert_eq!(decode("k", value[..at].to_vec()), None, "cut at {at}");
            }
            let mut longer = value.clone();
            longer.push(0);
            assert_eq!(decode("k", longer), None);
            // A later format, well-formed otherwise.
            let end = value.len() - CHECKSUM;
            let mut later = value[..end].to_vec();
            later[4] += 1;
            let sum = checksum("k", &later);
            later.extend_from_slice(&sum);
            assert_eq!(decode("k", later), None);
        }
    }
}
