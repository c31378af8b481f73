//! Shared prefixes: what a full block holds, as a digest, and which block holds it.
//!
//! A block's digest covers its tokens, the images its placeholders stand for, and the digest of the block before it; the
//! first one's comes from the caller's salt. So equal digests mean equal prefixes from the first token on. Digests are keyed
//! by a secret of the engine, and a hit is believed only after its content was compared.

use super::sequence::ImageSpan;
use std::collections::HashMap;
use std::sync::Arc;

/// 128 bits of a keyed BLAKE3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub u128);

/// Makes the digests of one engine.
#[derive(Clone)]
pub struct Digests {
    key: [u8; blake3::KEY_LEN],
}

/// What a full block holds.
#[derive(Debug, PartialEq, Eq)]
pub struct BlockContent {
    /// The block before it, or the root.
    pub parent: Digest,
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// The images that reach into it, and where they begin, counted from the block's first token.
    pub images: Vec<(Digest, i64)>,
}

/// A full block's content, and its digest.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The digest of `content`.
    pub digest: Digest,
    /// What the block holds.
    pub content: Arc<BlockContent>,
}

impl Digests {
    /// Digests under this key. Whoever knows it could make two prefixes look alike.
    pub fn new(key: [u8; blake3::KEY_LEN]) -> Self {
        Self { key }
    }

    /// The digest of these pieces, each with its length.
    pub fn of(&self, pieces: &[&[u8]]) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for piece in pieces {
            hasher.update(&(piece.len() as u64).to_le_bytes()).update(piece);
        }
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        Digest(u128::from_le_bytes(bytes))
    }

    fn of_block(&self, content: &BlockContent) -> Digest {
        let token_ids: Vec<u8> = content.token_ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let image =
            |(digest, start): &(Digest, i64)| [digest.0.to_le_bytes(), i128::from(*start).to_le_bytes()];
        let images: Vec<u8> = content.images.iter().flat_map(image).flatten().collect();
        self.of(&[&content.parent.0.to_le_bytes(), &token_ids, &images])
    }

    /// Adds the digests of full blocks to `sealed` until every full block of `token_ids` has one.
    pub fn seal(
        &self,
        sealed: &mut Vec<Sealed>,
        root: Digest,
        token_ids: &[u32],
        images: &[ImageSpan],
        block_size: usize,
    ) {
        for idx in sealed.len()..token_ids.len() / block_size {
            let (start, end) = (idx * block_size, (idx + 1) * block_size);
            let inside = images.iter().filter(|image| image.tokens.start < end && image.tokens.end > start);
            let content = BlockContent {
                parent: sealed.last().map_or(root, |sealed| sealed.digest),
                token_ids: token_ids[start..end].to_vec(),
                images: inside
                    .map(|image| (image.digest, image.tokens.start as i64 - start as i64))
                    .collect(),
            };
            sealed.push(Sealed { digest: self.of_block(&content), content: Arc::new(content) });
        }
    }
}

/// Which block of one group of layers holds which content.
#[derive(Debug, Default)]
pub struct PrefixIndex {
    blocks: HashMap<Digest, (u32, Arc<BlockContent>)>,
    digests: HashMap<u32, Digest>,
}

impl PrefixIndex {
    /// The block that holds this content, if one does.
    pub fn find(&self, sealed: &Sealed) -> Option<u32> {
        let (block, content) = self.blocks.get(&sealed.digest)?;
        (*content == sealed.content).then_some(*block)
    }

    /// Notes that `block` holds this content, unless another block is known to.
    pub fn insert(&mut self, sealed: &Sealed, block: u32) {
        if !self.blocks.contains_key(&sealed.digest) && !self.digests.contains_key(&block) {
            self.blocks.insert(sealed.digest, (block, sealed.content.clone()));
            self.digests.insert(block, sealed.digest);
        }
    }

    /// Forgets what `block` holds: it will be written again.
    pub fn forget(&mut self, block: u32) {
        if let Some(digest) = self.digests.remove(&block) {
            self.blocks.remove(&digest);
        }
    }

    /// Whether somebody could find `block` here.
    pub fn knows(&self, block: u32) -> bool {
        self.digests.contains_key(&block)
    }

    /// How many blocks can be found here.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether none can.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGESTS: Digests = Digests { key: [7; 32] };

    fn seal(salt: &str, token_ids: &[u32], images: &[ImageSpan]) -> Vec<Sealed> {
        let mut sealed = Vec::new();
        DIGESTS.seal(&mut sealed, DIGESTS.of(&[salt.as_bytes()]), token_ids, images, 4);
        sealed
    }

    fn digests(sealed: &[Sealed]) -> Vec<Digest> {
        sealed.iter().map(|sealed| sealed.digest).collect()
    }

    #[test]
    fn a_digest_covers_all_tokens_before_it_the_images_and_the_salt() {
        let ids: Vec<u32> = (0..14).collect();
        let image = |digest, start| ImageSpan { tokens: start..start + 3, digest: Digest(digest) };
        let plain = digests(&seal("", &ids, &[]));
        assert_eq!(plain.len(), 3, "the last two tokens fill no block");
        let changed = |at: usize| {
            let mut ids = ids.clone();
            ids[at] += 100;
            digests(&seal("", &ids, &[]))
        };
        assert_eq!(changed(13), plain);
        assert_eq!(changed(5)[0], plain[0]);
        assert!(changed(5)[1] != plain[1] && changed(5)[2] != plain[2]);
        assert_ne!(digests(&seal("tenant", &ids, &[]))[0], plain[0]);
        let with_image = digests(&seal("", &ids, &[image(1, 3)]));
        assert_ne!(with_image[0], plain[0]);
        assert_ne!(with_image, digests(&seal("", &ids, &[image(2, 3)])), "another image");
        assert_ne!(with_image[0], digests(&seal("", &ids, &[image(1, 2)]))[0], "the same image elsewhere");
    }

    #[test]
    fn sealing_goes_on_where_it_stopped() {
        let ids: Vec<u32> = (0..16).collect();
        let mut sealed = seal("", &ids[..7], &[]);
        DIGESTS.seal(&mut sealed, DIGESTS.of(&[b""]), &ids, &[], 4);
        assert_eq!(digests(&sealed), digests(&seal("", &ids, &[])));
    }

    #[test]
    fn pieces_do_not_run_into_each_other() {
        assert_ne!(DIGESTS.of(&[b"ab", b"c"]), DIGESTS.of(&[b"a", b"bc"]));
        assert_ne!(DIGESTS.of(&[b"x"]), Digests::new([8; 32]).of(&[b"x"]));
    }

    #[test]
    fn a_digest_that_collides_is_not_believed() {
        let (ours, theirs) = (&seal("", &[1, 2, 3, 4], &[])[0], &seal("", &[1, 2, 3, 5], &[])[0]);
        let forged = Sealed { digest: ours.digest, content: theirs.content.clone() };
        let mut index = PrefixIndex::default();
        index.insert(ours, 3);
        assert_eq!((index.find(ours), index.find(&forged)), (Some(3), None));
        index.insert(&forged, 4);
        assert_eq!(index.find(ours), Some(3));
        index.forget(3);
        assert_eq!((index.find(ours), index.len()), (None, 0));
    }
}
