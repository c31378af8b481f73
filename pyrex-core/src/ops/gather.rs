//! Rows in and out: embeddings, soft tokens into place, KV slots.

use super::activation::scale;
use super::host::host_view;
use super::matrix::HostElements;
use super::recording::overwrite;
use super::simd::Level;
use super::simd::float::Float;
use super::{Matrix, has_kernel};
use crate::error::{Error, Result};
use candle_core::{CpuStorage, DType, Device, InplaceOp3, Layout, Tensor, WithDType};
use half::bf16;
use rayon::prelude::*;

/// Rows `ids` of `table`, widened or rounded to `dtype`. `ids`: `[T]` u32; returns `[T, C]`.
/// A table in host memory is read at the rows asked for and nowhere else, on whatever device the ids lie.
///
/// # Errors
/// `InvalidRequest` if an id is not below the number of rows; on a device, which tells nobody, its row is NaN instead.
pub fn gather_rows(table: &Matrix, ids: &Tensor, dtype: DType) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(ids) {
        return super::cuda::rows::gather_rows(&lane, table, ids, 1.0, dtype);
    }
    let Some(elements) = table.host() else { return gather_rows_reference(table, ids, dtype) };
    let host_ids = ids.to_device(&Device::Cpu)?.contiguous()?;
    let view = host_view(&host_ids)?;
    let ids_slice = view.slice::<u32>()?;
    if let Some(id) = ids_slice.iter().find(|&&id| id as usize >= table.rows()) {
        return Err(Error::invalid_request(format_args!("row {id} of a table of {} rows", table.rows())));
    }
    let rows = match (elements, dtype) {
        (HostElements::F32(table_rows), DType::F32) => copied(table_rows, table.cols(), ids_slice)?,
        (HostElements::Bf16(table_rows), DType::BF16) => copied(table_rows, table.cols(), ids_slice)?,
        (HostElements::F32(table_rows), _) => widened(table_rows, table.cols(), ids_slice)?,
        (HostElements::Bf16(table_rows), _) => widened(table_rows, table.cols(), ids_slice)?,
        (HostElements::F16(table_rows), _) => widened(table_rows, table.cols(), ids_slice)?,
    };
    Ok(rows.to_dtype(dtype)?.to_device(ids.device())?)
}

/// [`gather_rows`] times `factor`, rounded again.
///
/// # Errors
/// As [`gather_rows`].
pub fn embed_rows(table: &Matrix, ids: &Tensor, factor: f32, dtype: DType) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(ids) {
        return super::cuda::rows::gather_rows(&lane, table, ids, factor, dtype);
    }
    scale(&gather_rows(table, ids, dtype)?, factor)
}

/// `ids`, with `pad` in place of every placeholder. `[T]` u32 both.
///
/// # Errors
/// `Internal` if the device fails.
pub fn mask_ids(ids: &Tensor, placeholders: &[u32], pad: u32) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(ids) {
        return super::cuda::rows::mask_ids(&lane, ids, placeholders, pad);
    }
    mask_ids_reference(ids, placeholders, pad)
}

/// The definition of [`mask_ids`], in tensor operations.
///
/// # Errors
/// As [`mask_ids`].
pub fn mask_ids_reference(ids: &Tensor, placeholders: &[u32], pad: u32) -> Result<Tensor> {
    let pad = Tensor::full(pad, ids.shape(), ids.device())?;
    placeholders.iter().try_fold(ids.clone(), |ids, id| Ok(ids.eq(*id)?.where_cond(&pad, &ids)?))
}

/// `target[to] = source[from]` for each of `pairs`, in place. `source`, `target`: `[N]` u32.
///
/// # Errors
/// `Internal` on the CPU if an index is out of range; on a device it is passed over.
pub fn copy_ids(source: &Tensor, pairs: &[(u32, u32)], target: &Tensor) -> Result<()> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(target) {
        return super::cuda::rows::copy_ids(&lane, source, pairs, target);
    }
    let mut ids: Vec<u32> = target.to_vec1()?;
    let source: Vec<u32> = source.to_vec1()?;
    for &(from, to) in pairs {
        match (source.get(from as usize), ids.get_mut(to as usize)) {
            (Some(id), Some(target)) => *target = *id,
            _ => return Err(Error::internal(format_args!("id {from} of {} to {to}", source.len()))),
        }
    }
    overwrite(target, 0, &ids)
}

/// Rows `rows` of `x`. `x`: `[T, C]` floats or `[T]` u32; `rows`: `[R]` u32.
///
/// # Errors
/// `Internal` if a row is not below `T`; on a device it is NaN, or an id of `u32::MAX`, instead.
pub fn select_rows(x: &Tensor, rows: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(x) {
        return super::cuda::rows::select_rows(&lane, x, rows);
    }
    Ok(x.index_select(rows, 0)?)
}

/// The definition of [`gather_rows`], in tensor operations.
///
/// # Errors
/// As [`gather_rows`], except that an id out of range is `Internal` or, on a device, not seen.
pub fn gather_rows_reference(table: &Matrix, ids: &Tensor, dtype: DType) -> Result<Tensor> {
    Ok(table.to_tensor(ids.device())?.index_select(ids, 0)?.to_dtype(dtype)?)
}

fn copied<T: WithDType>(table: &[T], cols: usize, ids: &[u32]) -> Result<Tensor> {
    let mut out = Vec::with_capacity(ids.len() * cols);
    for &id in ids {
        out.extend_from_slice(&table[id as usize * cols..][..cols]);
    }
    Ok(Tensor::from_vec(out, (ids.len(), cols), &Device::Cpu)?)
}

fn widened<T: Float>(table: &[T], cols: usize, ids: &[u32]) -> Result<Tensor> {
    let mut out = vec![0.0; ids.len() * cols];
    out.par_chunks_exact_mut(cols.max(1)).zip(ids).for_each(|(out, &id)| {
        T::widen(Level::Widest, &table[id as usize * cols..][..cols], out);
    });
    Ok(Tensor::from_vec(out, (ids.len(), cols), &Device::Cpu)?)
}

/// `x` with `x[rows[i]] = source[i]`. `x`: `[T, C]`, `rows`: `[S]` u32, distinct; `source`: `[S, C]` of the same dtype.
///
/// # Errors
/// `Internal` if the shapes do not fit or a row is not below `T`.
pub fn scatter_rows(x: &Tensor, rows: &Tensor, source: &Tensor) -> Result<Tensor> {
    let ((_, width), (count, source_width)) = (x.dims2()?, source.dims2()?);
    if rows.dims() != [count] || width != source_width || x.dtype() != source.dtype() {
        return Err(misfit("scatter_rows", x, rows, source));
    }
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(x) {
        return super::cuda::rows::scatter_rows(&lane, x, rows, source);
    }
    match x.dtype() {
        _ if count == 0 => Ok(x.clone()),
        _ if !has_kernel(x) => scatter_rows_reference(x, rows, source),
        DType::F32 => scattered::<f32>(x, rows, source),
        _ => scattered::<bf16>(x, rows, source),
    }
}

/// The definition of [`scatter_rows`], in tensor operations.
///
/// # Errors
/// As [`scatter_rows`].
pub fn scatter_rows_reference(x: &Tensor, rows: &Tensor, source: &Tensor) -> Result<Tensor> {
    let index = rows.reshape(((), 1))?.broadcast_as(source.shape())?.contiguous()?;
    Ok(x.scatter(&index, &source.contiguous()?, 0)?)
}

fn scattered<T: WithDType>(x: &Tensor, rows: &Tensor, source: &Tensor) -> Result<Tensor> {
    let (x, rows, source) = (x.contiguous()?, rows.contiguous()?, source.contiguous()?);
    let (rows_view, source_view) = (host_view(&rows)?, host_view(&source)?);
    let mut out = host_view(&x)?.slice::<T>()?.to_vec();
    copy_rows("scatter_rows", &mut out, rows_view.slice()?, source_view.slice::<T>()?)?;
    Ok(Tensor::from_vec(out, x.shape(), &Device::Cpu)?)
}

/// Writes keys or values to their cache slots, in place: `pool[slots[t]] = source[t]`.
///
/// `pool`: `[slots, K, D]`; `slots`: `[T]` u32; `source`: `[T, K, D]` of the same dtype.
///
/// # Errors
/// `Internal` if the shapes do not fit or a slot is not in the pool; then nothing has been written.
pub fn write_slots(pool: &Tensor, slots: &Tensor, source: &Tensor) -> Result<()> {
    let ((_, heads, width), (tokens, source_heads, source_width)) = (pool.dims3()?, source.dims3()?);
    let fits = slots.dims() == [tokens] && (heads, width) == (source_heads, source_width);
    if !fits || pool.dtype() != source.dtype() {
        return Err(misfit("write_slots", pool, slots, source));
    }
    if tokens == 0 {
        return Ok(());
    }
    #[cfg(feature = "cuda")]
    if let Some(lane) = super::cuda::lane(pool) {
        return super::cuda::rows::write_slots(&lane, pool, slots, source);
    }
    if !has_kernel(pool) {
        return write_slots_reference(pool, slots, source);
    }
    Ok(pool.inplace_op3(&slots.contiguous()?, &source.contiguous()?, &WriteSlots)?)
}

/// The definition of [`write_slots`], in tensor operations.
///
/// # Errors
/// As [`write_slots`].
pub fn write_slots_reference(pool: &Tensor, slots: &Tensor, source: &Tensor) -> Result<()> {
    let index = slots.reshape(((), 1, 1))?.broadcast_as(source.shape())?.contiguous()?;
    Ok(pool.scatter_set(&index, &source.contiguous()?, 0)?)
}

struct WriteSlots;

impl InplaceOp3 for WriteSlots {
    fn name(&self) -> &'static str {
        "write-slots"
    }

    fn cpu_fwd(
        &self,
        pool: &mut CpuStorage,
        pool_layout: &Layout,
        slots: &CpuStorage,
        slots_layout: &Layout,
        source: &CpuStorage,
        source_layout: &Layout,
    ) -> candle_core::Result<()> {
        let range = |layout: &Layout| {
            let offsets = layout.contiguous_offsets();
            offsets.ok_or_else(|| candle_core::Error::Msg("write_slots takes contiguous tensors".into()))
        };
        let ((p0, p1), (t0, t1), (s0, s1)) =
            (range(pool_layout)?, range(slots_layout)?, range(source_layout)?);
        let slots = &slots.as_slice::<u32>()?[t0..t1];
        let copied = match (pool, source) {
            (CpuStorage::F32(pool), CpuStorage::F32(source)) => {
                copy_rows("write_slots", &mut pool[p0..p1], slots, &source[s0..s1])
            }
            (CpuStorage::BF16(pool), CpuStorage::BF16(source)) => {
                copy_rows("write_slots", &mut pool[p0..p1], slots, &source[s0..s1])
            }
            _ => Err(Error::internal("write_slots takes f32 or bf16, the same for the pool and the source")),
        };
        copied.map_err(|error| candle_core::Error::Msg(error.message().to_owned()))
    }
}

/// `target[rows[i]] = source[i]`, where a row is as long as `source` says.
fn copy_rows<T: Copy>(op: &str, target: &mut [T], rows: &[u32], source: &[T]) -> Result<()> {
    let width = source.len() / rows.len();
    if width == 0 {
        return Ok(());
    }
    let count = target.len() / width;
    if let Some(row) = rows.iter().find(|&&row| row as usize >= count) {
        return Err(Error::internal(format_args!("{op} to row {row} of {count}")));
    }
    for (&row, source) in rows.iter().zip(source.chunks_exact(width)) {
        target[row as usize * width..][..width].copy_from_slice(source);
    }
    Ok(())
}

fn misfit(op: &str, target: &Tensor, rows: &Tensor, source: &Tensor) -> Error {
    Error::internal(format_args!(
        "{op} of {:?} {:?} by rows {:?} into {:?} {:?}",
        source.shape(),
        source.dtype(),
        rows.shape(),
        target.shape(),
        target.dtype()
    ))
}
