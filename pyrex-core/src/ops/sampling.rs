//! Choosing tokens where the logits are, and reading no more than what was chosen.

use crate::error::{Error, Result};
use candle_core::{Device, Tensor};

/// How one token is drawn. The rules are those of the engine's sampler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// What logits are divided by; 0 takes the greatest.
    pub temperature: f32,
    /// Keep the so many likeliest; 0 keeps all.
    pub top_k: usize,
    /// Keep the likeliest up to this mass.
    pub top_p: f64,
    /// Keep what is at least this likely, relative to the likeliest.
    pub min_p: f64,
    /// The key of the random numbers.
    pub seed: u64,
    /// Which completion of several.
    pub index: u32,
    /// The position that the token will have.
    pub position: u32,
}

impl Draw {
    /// The greatest logit.
    pub const GREEDY: Self =
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, index: 0, position: 0 };
}

/// Whether tokens can be drawn on `device`.
pub fn can_draw(device: &Device) -> bool {
    cfg!(feature = "cuda") && matches!(device, Device::Cuda(_))
}

/// [`Draw`]s as a device reads them.
#[derive(Debug)]
pub struct DrawTable {
    #[cfg(feature = "cuda")]
    table: super::cuda::sampling::Table,
    #[cfg(not(feature = "cuda"))]
    never: std::convert::Infallible,
}

impl DrawTable {
    /// Room for `rows` draws.
    ///
    /// # Errors
    /// `Unsupported` on a device that cannot draw; `Device` or `OutOfMemory` if there is no room.
    pub fn new(rows: usize, device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if can_draw(device) {
            return Ok(Self { table: super::cuda::sampling::Table::new(rows, device)? });
        }
        Err(Error::unsupported(format_args!("drawing {rows} tokens on {:?}", device.location())))
    }

    /// Writes the first rows; what was drawn before is not disturbed.
    ///
    /// # Errors
    /// `Internal` if there are more draws than rows.
    pub fn write(&self, draws: &[Draw]) -> Result<()> {
        #[cfg(feature = "cuda")]
        return self.table.write(draws);
        #[cfg(not(feature = "cuda"))]
        match (self.never, draws) {}
    }

    /// One id for each row of `logits`, `[rows, V]` f32: `[rows]` u32, `u32::MAX` where no logit is above minus infinity.
    ///
    /// # Errors
    /// `Internal` if there are more logits than rows.
    pub fn draw(&self, logits: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        return self.table.draw(logits);
        #[cfg(not(feature = "cuda"))]
        match (self.never, logits) {}
    }
}

/// Reads ids back without waiting for them. Two may be under way at a time.
pub struct IdReader {
    #[cfg(feature = "cuda")]
    device: Option<super::cuda::sampling::HostIds>,
}

/// Ids on their way.
pub struct PendingIds(Ids);

enum Ids {
    /// Here already.
    Known(Vec<u32>),
    /// Behind an event of the device.
    #[cfg(feature = "cuda")]
    Coming(super::cuda::sampling::ComingIds),
}

impl IdReader {
    /// A reader of up to `max_ids` ids at a time.
    ///
    /// # Errors
    /// `Device` or `OutOfMemory` if the host's side of a copy cannot be had.
    pub fn new(max_ids: usize, device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        {
            let device = match device {
                Device::Cuda(device) => Some(super::cuda::sampling::HostIds::new(max_ids, device)?),
                _ => None,
            };
            Ok(Self { device })
        }
        #[cfg(not(feature = "cuda"))]
        {
            let _ = (max_ids, device);
            Ok(Self {})
        }
    }

    /// Begins to read `ids`, `[R]` u32.
    ///
    /// # Errors
    /// `Device` if the device fails.
    pub fn begin(&mut self, ids: &Tensor) -> Result<PendingIds> {
        #[cfg(feature = "cuda")]
        if let Some(device) = &mut self.device {
            return Ok(PendingIds(Ids::Coming(device.begin(ids)?)));
        }
        Ok(PendingIds(Ids::Known(ids.to_vec1()?)))
    }
}

impl PendingIds {
    /// Of a step that draws nothing.
    pub fn none() -> Self {
        Self(Ids::Known(Vec::new()))
    }

    /// Waits for them.
    ///
    /// # Errors
    /// `Device` if the step that makes them fails.
    pub fn wait(self) -> Result<Vec<u32>> {
        match self.0 {
            Ids::Known(ids) => Ok(ids),
            #[cfg(feature = "cuda")]
            Ids::Coming(ids) => ids.wait(),
        }
    }
}
