//! Finding a wrong number: the tensors of a pass on disk, and two of such files side by side.

use crate::abi::{
    Growing, Out, array, c_text, object, optional_text, read_growing, take_back, texts, write_growing,
};
use crate::guard::{Result, guard};
use crate::options::{parsed, some};
use crate::prompt::pyrex_prompt_t;
use crate::status::{Failure, c_string, pyrex_status_t};
use pyrex_core::{
    ActivationDtype, Comparison, DeviceChoice, DumpFile, DumpInput, DumpOptions, Input, LoadOptions,
    ModelSource, Outcome, Threshold, compare, dump, load,
};
use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr;

/// What to dump. Zero means the default everywhere: begin with a zeroed struct and set `struct_size`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pyrex_dump_options_t {
    /// sizeof(pyrex_dump_options_t).
    pub struct_size: usize,
    /// As in pyrex_engine_options_t.
    pub device: *const c_char,
    /// As in pyrex_engine_options_t.
    pub dtype: *const c_char,
    /// Globs over the names of tensors, such as "*layers.0.*". NULL: all tensors.
    pub taps: *const *const c_char,
    /// How many.
    pub num_taps: usize,
    /// Greedy decode steps after the prompt.
    pub num_steps: u64,
}

// SAFETY: numbers and pointers of 8 bytes.
unsafe impl Growing for pyrex_dump_options_t {
    const NAME: &str = "pyrex_dump_options_t";
}

/// Runs `prompt` through the model in the folder `model`, without an engine, and writes every named tensor of the pass to the file
/// `out_path`: raw f32 with a JSON index beside it if the name ends in ".bin", else safetensors. `options` may be NULL. How many tensors
/// were written goes to `*num_tensors`, which may be NULL. Blocks: it loads the model and computes on the calling thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_dump(
    model: *const c_char,
    prompt: *const pyrex_prompt_t,
    options: *const pyrex_dump_options_t,
    out_path: *const c_char,
    num_tensors: *mut u64,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let (model, out_path) = (c_text("model", model)?, c_text("out_path", out_path)?);
        let input = object("prompt", prompt)?.input();
        let (load_options, dump_options) = dump_options(model, options)?;
        let input = match &input {
            Input::Prompt(prompt) => DumpInput::Prompt(prompt),
            Input::Encoded(encoded) => DumpInput::Encoded(encoded),
        };
        let loaded = load(&load_options)?;
        let written = dump(&loaded, &load_options.source, input, &dump_options, Path::new(out_path))?;
        if let Ok(out) = Out::new("num_tensors", num_tensors) {
            out.set(written.num_tensors as u64);
        }
        Ok(())
    })
}

/// # Safety
/// `options` is NULL or points to a struct as the header describes it.
unsafe fn dump_options(
    model: &str,
    options: *const pyrex_dump_options_t,
) -> Result<(LoadOptions, DumpOptions)> {
    // SAFETY: the caller's promise.
    let (device, dtype, taps, steps) = unsafe {
        let given = read_growing(options)?;
        let taps = texts("a tap", array("taps", given.taps, given.num_taps)?)?;
        (parsed("device", given.device)?, parsed("dtype", given.dtype)?, taps, given.num_steps)
    };
    let device: DeviceChoice = device.unwrap_or_default();
    let dtype: ActivationDtype = dtype.unwrap_or(device.default_dtype());
    let load_options = LoadOptions::new(ModelSource::Path(model.into()), device.open()?, dtype.dtype());
    let dump_options = DumpOptions {
        taps,
        steps: some(steps).unwrap_or(0),
        model: model.to_owned(),
        ..DumpOptions::default()
    };
    Ok((load_options, dump_options))
}

/// A finding: both dumps have the tensor, and its figures are told.
pub const PYREX_COMPARED_FIGURES: i32 = 0;
/// A finding: both have it, in other shapes.
pub const PYREX_COMPARED_SHAPES: i32 = 1;
/// A finding: only ours has it.
pub const PYREX_COMPARED_ONLY_OURS: i32 = 2;
/// A finding: only theirs has it.
pub const PYREX_COMPARED_ONLY_THEIRS: i32 = 3;

/// Two dumps, tensor by tensor. Never changes, and may be read from any number of threads at once.
pub struct pyrex_comparison_t {
    comparison: Comparison,
    names: Vec<CString>,
}

/// One tensor of two dumps. Written by pyrex_comparison_at(); set `struct_size` before.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pyrex_compared_t {
    /// sizeof(pyrex_compared_t).
    pub struct_size: usize,
    /// Its name. Lives as long as the comparison.
    pub name: *const c_char,
    /// "match", "drift", "suspicious" or "catastrophic"; NULL without figures. Lives for ever.
    pub verdict: *const c_char,
    /// One of the PYREX_COMPARED_ constants. The figures below are 0 with all but the first.
    pub finding: i32,
    /// 1 if it is as close as a healthy build is, else 0.
    pub passes: i32,
    /// The cosine of the two.
    pub cosine: f64,
    /// |ours - theirs| / |theirs|.
    pub rel_l2: f64,
    /// The largest |ours - theirs| of an element.
    pub max_abs: f64,
    /// The largest |ours - theirs| / |theirs| of an element.
    pub max_rel: f64,
    /// `rel_l2` as a multiple of the reference's own noise; NaN where that is not known.
    pub noise_ratio: f64,
}

// SAFETY: numbers and pointers, 4-byte fields in pairs.
unsafe impl Growing for pyrex_compared_t {
    const NAME: &str = "pyrex_compared_t";
}

/// Compares the dump `ours` with the dump `theirs`. Errors are judged as multiples of the distance between `noise`, a third dump,
/// and `theirs`; if that is NULL, of what `theirs` says about itself. `*comparison` is to be freed with
/// pyrex_comparison_free(). Blocks: it reads the files.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_compare(
    ours: *const c_char,
    theirs: *const c_char,
    noise: *const c_char,
    comparison: *mut *mut pyrex_comparison_t,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let out = Out::object("comparison", comparison)?;
        let (ours, theirs) = (c_text("ours", ours)?, c_text("theirs", theirs)?);
        let noise = optional_text("noise", noise)?;
        let noise = noise.map(|noise| DumpFile::open(Path::new(noise))).transpose()?;
        let (ours, theirs) = (DumpFile::open(Path::new(ours))?, DumpFile::open(Path::new(theirs))?);
        let comparison = compare(&ours, &theirs, noise.as_ref())?;
        let names = comparison.tensors.iter().map(|compared| c_string(compared.name.clone())).collect();
        out.give(pyrex_comparison_t { comparison, names });
        Ok(())
    })
}

/// How many tensors were compared, and how many of them do not pass; either pointer may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_comparison_count(
    comparison: *const pyrex_comparison_t,
    num_tensors: *mut usize,
    num_failures: *mut usize,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let comparison = &object("comparison", comparison)?.comparison;
        if let Ok(out) = Out::new("num_tensors", num_tensors) {
            out.set(comparison.tensors.len());
        }
        if let Ok(out) = Out::new("num_failures", num_failures) {
            out.set(comparison.failures(Threshold::default()).count());
        }
        Ok(())
    })
}

/// Tells of the tensor at `tensor_idx`, in the order in which they were computed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_comparison_at(
    comparison: *const pyrex_comparison_t,
    tensor_idx: usize,
    compared: *mut pyrex_compared_t,
) -> pyrex_status_t {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        let pyrex_comparison_t { comparison, names } = object("comparison", comparison)?;
        let (Some(found), Some(name)) = (comparison.tensors.get(tensor_idx), names.get(tensor_idx)) else {
            let expected = names.len();
            return Err(Failure::invalid(format!(
                "tensor_idx is {tensor_idx}, expected one below {expected}"
            )));
        };
        let mut value = pyrex_compared_t {
            name: name.as_ptr(),
            passes: found.passes(Threshold::default()).into(),
            noise_ratio: found.ratio().unwrap_or(f64::NAN),
            ..pyrex_compared_t::zero()
        };
        match &found.outcome {
            Outcome::Figures { figures, .. } => {
                value.verdict = verdict(figures.verdict().name());
                (value.cosine, value.rel_l2) = (figures.cosine, figures.rel_l2);
                (value.max_abs, value.max_rel) = (figures.max_abs, figures.max_rel);
            }
            Outcome::Shapes { .. } => value.finding = PYREX_COMPARED_SHAPES,
            Outcome::OnlyOurs => value.finding = PYREX_COMPARED_ONLY_OURS,
            Outcome::OnlyTheirs => value.finding = PYREX_COMPARED_ONLY_THEIRS,
        }
        write_growing("compared", compared, &value)
    })
}

fn verdict(name: &str) -> *const c_char {
    let known = [c"match", c"drift", c"suspicious", c"catastrophic"];
    known
        .into_iter()
        .find(|known| known.to_bytes() == name.as_bytes())
        .map_or(ptr::null(), |known| known.as_ptr())
}

/// Frees a comparison; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyrex_comparison_free(comparison: *mut pyrex_comparison_t) {
    // SAFETY: what the header asks of every caller.
    guard(|| unsafe {
        drop(take_back(comparison));
        Ok(())
    });
}
