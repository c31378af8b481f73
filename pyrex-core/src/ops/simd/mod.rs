//! The CPU kernels: written once over a vector type, run on AVX-512, AVX2 or plain code as the machine has them.
