// What the Python side and the compiled kernels agree on. Raise the number whenever an argument list or a table changes:
// motedge/runtime/kernels/library.py takes only kernels that were compiled with its own number.
#pragma once

#define MOTEDGE_KERNEL_INTERFACE 1
