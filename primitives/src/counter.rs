//! AES in counter mode with a 128-bit big-endian counter (RFC 4344 section 4).

use aes::cipher::{
    Block, BlockCipherEncrypt, BlockSizeUser, InnerIvInit, IvState, KeyInit, StreamCipherCore,
    consts::U16,
};
use aes::{Aes128, Aes192, Aes256};
use ctr::flavors::Ctr128BE;
use ctr::{CtrCore, cipher::KeySizeUser};

use crate::Refused;

/// One direction's key stream; lasts as long as its keys do.
pub struct AesCounter(Width);

enum Width {
    Aes128(CtrCore<Aes128, Ctr128BE>),
    Aes192(CtrCore<Aes192, Ctr128BE>),
    Aes256(CtrCore<Aes256, Ctr128BE>),
}

impl AesCounter {
    /// A key stream for a key of 16, 24 or 32 bytes that starts at counter `iv`.
    pub fn new(key: &[u8], iv: &[u8; 16]) -> Result<Self, Refused> {
        Ok(Self(match key.len() {
            16 => Width::Aes128(start(key, iv)?),
            24 => Width::Aes192(start(key, iv)?),
            32 => Width::Aes256(start(key, iv)?),
            _ => return Err(Refused),
        }))
    }

    /// Encrypts or decrypts whole blocks in place and moves on by as many.
    ///
    /// # Panics
    /// When `data` is no multiple of 16 bytes: the rest of the stream would be misaligned.
    pub fn apply(&mut self, data: &mut [u8]) {
        match &mut self.0 {
            Width::Aes128(stream) => apply(stream, data),
            Width::Aes192(stream) => apply(stream, data),
            Width::Aes256(stream) => apply(stream, data),
        }
    }

    /// The counter of the next block.
    pub fn position(&self) -> [u8; 16] {
        match &self.0 {
            Width::Aes128(stream) => stream.iv_state().into(),
            Width::Aes192(stream) => stream.iv_state().into(),
            Width::Aes256(stream) => stream.iv_state().into(),
        }
    }
}

impl core::fmt::Debug for AesCounter {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("AesCounter")
    }
}

fn start<C>(key: &[u8], iv: &[u8; 16]) -> Result<CtrCore<C, Ctr128BE>, Refused>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + KeyInit + KeySizeUser,
{
    let cipher = C::new_from_slice(key).map_err(|_| Refused)?;
    Ok(CtrCore::inner_iv_init(cipher, &(*iv).into()))
}

fn apply<C>(stream: &mut CtrCore<C, Ctr128BE>, data: &mut [u8])
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let (blocks, rest) = Block::<C>::slice_as_chunks_mut(data);
    assert!(
        rest.is_empty(),
        "invariant: counter mode runs over whole blocks"
    );
    stream.apply_keystream_blocks(blocks);
}
