// All kernels as one translation unit: nvcc writes one fatbin a unit, and the device loads one.
#include "ingest.cu"
#include "solver.cu"
